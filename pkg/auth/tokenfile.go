package auth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"
)

// TokenFile knows the bearer tokens of a file, which is read once. Wrap it in
// AudienceAgnostic: such a token names no audiences.
type TokenFile struct {
	// users are found by the digest of their token, so that how long a look-up
	// takes says nothing about tokens that are near.
	users map[[sha256.Size]byte]*User
}

// ParseTokenFile reads lines of token, user name, user UID and, optionally, the
// user's groups, which are one column with commas between them. A line with an
// empty token counts for nothing, and of two with the same one the later counts.
func ParseTokenFile(data []byte) (*TokenFile, error) {
	f := &TokenFile{users: map[[sha256.Size]byte]*User{}}
	lines := csv.NewReader(bytes.NewReader(data))
	lines.FieldsPerRecord = -1
	for {
		columns, err := lines.Read()
		if errors.Is(err, io.EOF) {
			return f, nil
		}
		if err != nil {
			return nil, err
		}
		if len(columns) < 3 {
			line, _ := lines.FieldPos(0)
			return nil, fmt.Errorf("line %d has %d columns: write token, user name and user UID, and groups if there are any", line, len(columns))
		}
		if columns[0] == "" {
			continue
		}
		u := &User{Name: columns[1], UID: columns[2]}
		if len(columns) > 3 && columns[3] != "" {
			u.Groups = strings.Split(columns[3], ",")
		}
		f.users[sha256.Sum256([]byte(columns[0]))] = u
	}
}

// AuthenticateToken implements TokenAuthenticator.
func (f *TokenFile) AuthenticateToken(_ context.Context, token string, _ []string) (*TokenInfo, bool, error) {
	u, ok := f.users[sha256.Sum256([]byte(token))]
	if !ok {
		return nil, false, nil
	}
	return &TokenInfo{User: u}, true, nil
}
