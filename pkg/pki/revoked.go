package pki

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/big"
	"strings"
)

// RevokedFile is the name of the file in a folder of keys that lists
// certificates which count no more.
const RevokedFile = "revoked"

// RevokedHead is what such a file begins with: what may be in it.
const RevokedHead = `# Client certificates that are refused, although they have not expired, one in a
# line, by the fingerprint under which the audit log knows them:
#   X509SHA256=<64 hexadecimal digits>
# or by the serial number, whichever authority gave it:
#   serial=<hexadecimal digits>
# A changed file counts within seconds: what is under way ends, too.
`

const (
	fingerprintPrefix = "X509SHA256="
	serialPrefix      = "serial="
	// maxRevoked bounds the certificates of a list, maxSerial the digits of a
	// serial number, which has at most 20 bytes.
	maxRevoked = 100_000
	maxSerial  = 40
)

// Revoked are certificates that count no more. The zero value has none. It is
// immutable.
type Revoked struct {
	sums    map[[sha256.Size]byte]bool
	serials map[string]bool // in hexadecimal, without leading zeros
}

// ParseRevoked reads a list. A line that is not understood is an error: it may
// be a certificate that somebody wants refused.
func ParseRevoked(data []byte) (*Revoked, error) {
	r := &Revoked{sums: map[[sha256.Size]byte]bool{}, serials: map[string]bool{}}
	n := 0
	for raw := range bytes.Lines(data) {
		n++
		line := strings.TrimSpace(string(raw))
		if line == "" || line[0] == '#' {
			continue
		}
		if len(r.sums)+len(r.serials) >= maxRevoked {
			return nil, fmt.Errorf("the list of refused certificates has more than %d", maxRevoked)
		}
		if digits, ok := strings.CutPrefix(line, fingerprintPrefix); ok {
			sum, err := hex.DecodeString(strings.ReplaceAll(digits, ":", ""))
			if err == nil && len(sum) == sha256.Size {
				r.sums[[sha256.Size]byte(sum)] = true
				continue
			}
		} else if digits, ok := strings.CutPrefix(line, serialPrefix); ok {
			digits = strings.ReplaceAll(digits, ":", "")
			serial, ok := new(big.Int).SetString(digits, 16)
			if ok && serial.Sign() > 0 && len(digits) <= maxSerial {
				r.serials[serial.Text(16)] = true
				continue
			}
		}
		return nil, fmt.Errorf("line %d of the list of refused certificates is neither %s and 64 hexadecimal digits nor %s and the digits of a serial number", n, fingerprintPrefix, serialPrefix)
	}
	return r, nil
}

// RevokedLine is the line of the list that refuses a certificate.
func RevokedLine(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return fingerprintPrefix + hex.EncodeToString(sum[:])
}

// Len is how many certificates are refused.
func (r *Revoked) Len() int { return len(r.sums) + len(r.serials) }

// Has says whether a certificate is on the list.
func (r *Revoked) Has(cert *x509.Certificate) bool {
	return len(r.serials) > 0 && r.serials[cert.SerialNumber.Text(16)] || len(r.sums) > 0 && r.sums[sha256.Sum256(cert.Raw)]
}
