package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"coracle/pkg/pki"
)

// Certificate is one of a cluster.
type Certificate struct {
	// File is relative to the cluster's folder.
	File string
	// Subject and Issuer are common names.
	Subject, Issuer string
	Ends            time.Time
	// Note is what there is to know or to do, empty for nothing.
	Note string
}

// Certificates lists the certificates of a cluster by their files, running or not.
func (m *Machine) Certificates(name string, now time.Time) ([]Certificate, error) {
	f := m.folder(name)
	s, err := f.load()
	if err != nil {
		return nil, err
	}
	patterns := []string{f.control("pki", "*.crt")}
	for _, n := range s.Nodes {
		patterns = append(patterns, f.rootfs(n.Name, nodeDir, "*.crt"), f.rootfs(n.Name, agentPKI, "*-current.pem"))
	}
	var out []Certificate
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		slices.Sort(files)
		for _, file := range files {
			if filepath.Base(file) == filepath.Base(nodeCA) && !strings.HasPrefix(file, f.control()) {
				continue // a copy of the authority
			}
			c, err := describeCertificate(file, now)
			if err != nil {
				return nil, err
			}
			if c.File, err = filepath.Rel(string(f), file); err != nil {
				return nil, err
			}
			out = append(out, c)
		}
	}
	return out, nil
}

// describeCertificate reads the first certificate of a file.
func describeCertificate(file string, now time.Time) (Certificate, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return Certificate{}, fmt.Errorf("read a certificate: %w", err)
	}
	certs, err := pki.ParseCertificates(data)
	if err != nil {
		return Certificate{}, fmt.Errorf("%s: %w", file, err)
	}
	cert := certs[0]
	c := Certificate{Subject: cert.Subject.CommonName, Issuer: cert.Issuer.CommonName, Ends: cert.NotAfter}
	base := strings.TrimSuffix(filepath.Base(file), ".crt")
	switch {
	case !now.Before(cert.NotAfter):
		c.Note = "has ended"
	case cert.IsCA && strings.HasSuffix(base, "-next-cross"):
		c.Note = "makes the new authority known to those who know the old"
	case cert.IsCA && strings.HasSuffix(base, "-next"):
		c.Note = "the new authority: \"ctl cluster rotate-ca\" goes on with it, --finish ends the old"
	case cert.IsCA && pki.AuthorityAging(cert, now):
		c.Note = "replace it with \"ctl cluster rotate-ca\""
	case !cert.IsCA && pki.Due(now, cert):
		c.Note = "to be renewed, by itself while the cluster runs"
	}
	return c, nil
}
