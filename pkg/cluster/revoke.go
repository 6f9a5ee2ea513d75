package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"coracle/pkg/pki"
)

// maxCertFile bounds what is read of a file that names a certificate.
const maxCertFile = 1 << 20

// Revoke puts certificates on the list of those that a cluster's API server
// refuses, or takes them off again. Each is a file that holds it, or a line of
// the list. A running API server follows within seconds and ends what is under
// way under them.
func (m *Machine) Revoke(ctx context.Context, name string, certificates []string, undo bool) error {
	lines, err := revokedLines(certificates)
	if err != nil {
		return err
	}
	b, unlock, err := m.open(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	changed, err := b.revoke(lines, undo)
	if err != nil {
		return err
	}
	what := "refused"
	if undo {
		what = "accepted again"
	}
	for _, line := range lines {
		fmt.Fprintf(m.out(), "The certificate %s is %s\n", line, what)
	}
	if !changed {
		fmt.Fprintf(m.out(), "That was so before: nothing has changed\n")
	}
	return nil
}

// Revoked is the list of a cluster, line by line.
func (m *Machine) Revoked(name string) ([]string, error) {
	f := m.folder(name)
	if _, err := f.load(); err != nil {
		return nil, err
	}
	data, err := readRevoked(f)
	if err != nil {
		return nil, err
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			out = append(out, line)
		}
	}
	return out, nil
}

func (b *boot) revoke(lines []string, undo bool) (changed bool, err error) {
	old, err := readRevoked(b.f)
	if err != nil {
		return false, err
	}
	had := slices.Collect(strings.Lines(string(old)))
	has := func(list []string, line string) bool {
		return slices.ContainsFunc(list, func(l string) bool { return strings.EqualFold(strings.TrimSpace(l), line) })
	}
	next := slices.Clone(had)
	if undo {
		next = slices.DeleteFunc(next, func(l string) bool { return has(lines, strings.TrimSpace(l)) })
	} else {
		if n := len(next); n > 0 && !strings.HasSuffix(next[n-1], "\n") {
			next[n-1] += "\n"
		}
		for _, line := range lines {
			if !has(next, line) {
				next = append(next, line+"\n")
			}
		}
	}
	if slices.Equal(had, next) {
		return false, nil
	}
	data := []byte(strings.Join(next, ""))
	// The API server leaves a list alone that it cannot read.
	if _, err := pki.ParseRevoked(data); err != nil {
		return false, fmt.Errorf("the list %s would not be readable, so it stays as it is: %w", b.f.control("pki", pki.RevokedFile), err)
	}
	return true, pki.WriteFile(b.f.control("pki", pki.RevokedFile), data, 0o600)
}

func readRevoked(f folder) ([]byte, error) {
	data, err := os.ReadFile(f.control("pki", pki.RevokedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return []byte(pki.RevokedHead), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the list of refused certificates: %w", err)
	}
	return data, nil
}

// revokedLines are the lines of the list for what a user names.
func revokedLines(certificates []string) ([]string, error) {
	var out []string
	for _, name := range certificates {
		if list, err := pki.ParseRevoked([]byte(name)); err == nil && list.Len() == 1 {
			out = append(out, name)
			continue
		}
		info, err := os.Stat(name)
		if err != nil {
			return nil, fmt.Errorf("%q is neither X509SHA256=FINGERPRINT nor serial=NUMBER nor a file with a certificate: %w", name, err)
		}
		if info.Size() > maxCertFile {
			return nil, fmt.Errorf("%s is larger than %d bytes: it is no certificate", name, maxCertFile)
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read a certificate: %w", err)
		}
		certs, err := pki.ParseCertificates(data)
		if err != nil {
			return nil, fmt.Errorf("%s holds no certificate: %w", name, err)
		}
		if certs[0].IsCA {
			return nil, fmt.Errorf("%s holds an authority, which is not refused this way: replace it with \"ctl cluster rotate-ca\"", name)
		}
		out = append(out, pki.RevokedLine(certs[0]))
	}
	return out, nil
}
