package controlplane

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"k8s.io/utils/clock"

	"coracle/pkg/pki"
	"coracle/pkg/resource"
	"coracle/pkg/storage"
	"coracle/pkg/storage/encrypted"
)

// Encryption keeps the values of some resources encrypted in the store.
type Encryption struct {
	// File is an EncryptionConfiguration. A changed one is read while the
	// server runs, and stored values are rewritten as it says.
	File string
	// Create makes the file, with a key for Secrets, when it does not exist.
	Create bool
}

const (
	// encryptionPoll is how often the configuration is looked at.
	encryptionPoll = time.Second
	// rewriteLimit bounds one pass over the stored values.
	rewriteLimit = 10 * time.Minute
)

// encryption is the transformer between the store and all that reads it.
type encryption struct {
	file    string
	table   *resource.Table
	backend *encrypted.Backend
	clock   clock.WithTicker
	log     *slog.Logger
	loaded  []byte // the content in force; used by the loop alone
}

func newEncryption(cfg *Config, table *resource.Table, rand io.Reader) (*encryption, error) {
	e := &encryption{file: cfg.Encryption.File, table: table, clock: cfg.Clock, log: cfg.Log}
	var err error
	if cfg.Encryption.Create {
		e.loaded, err = pki.LoadOrCreateEncryption(e.file, rand)
	} else {
		e.loaded, err = os.ReadFile(e.file)
	}
	if err != nil {
		return nil, fmt.Errorf("read the encryption configuration: %w", err)
	}
	rules, err := encryptionRules(table, e.loaded)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.file, err)
	}
	e.backend = encrypted.New(cfg.Backend, rules, rand)
	return e, nil
}

// encryptionRules translates a configuration into rules about storage keys.
func encryptionRules(table *resource.Table, data []byte) (*encrypted.Rules, error) {
	cfg, err := pki.ParseEncryption(data)
	if err != nil {
		return nil, err
	}
	var rules []encrypted.Rule
	for _, r := range cfg.Resources {
		var rule encrypted.Rule
		for _, name := range r.Resources {
			rule.Prefixes = append(rule.Prefixes, storagePrefixes(table, name)...)
		}
		for i, p := range r.Providers {
			switch {
			case p.Identity != nil:
				rule.Plain = true
				rule.PlainFirst = i == 0
			case p.AESGCM != nil:
				rule.Keys = append(rule.Keys, encryptionKeys(encrypted.AESGCM, p.AESGCM)...)
			case p.Secretbox != nil:
				rule.Keys = append(rule.Keys, encryptionKeys(encrypted.Secretbox, p.Secretbox)...)
			}
		}
		rules = append(rules, rule)
	}
	return encrypted.NewRules(rules)
}

func encryptionKeys(c encrypted.Cipher, keys *pki.EncryptionKeys) []encrypted.Key {
	var out []encrypted.Key
	for _, k := range keys.Keys {
		out = append(out, encrypted.Key{Cipher: c, Name: k.Name, Secret: k.Secret})
	}
	return out
}

// storagePrefixes are where the objects of a resource are: secrets,
// deployments.apps, *.apps, *.* or, of the core group, "*.". Of a group that
// the table does not know are custom resources.
func storagePrefixes(table *resource.Table, name string) []string {
	if name == "*.*" {
		return []string{storage.Root}
	}
	plural, group, _ := strings.Cut(name, ".")
	var out []string
	for _, res := range table.All() {
		if res.Stored() && res.Group == group && (res.Plural == plural || plural == "*") {
			out = append(out, storage.Root+res.StoragePath+"/")
		}
	}
	switch {
	case group == "":
	case plural == "*":
		out = append(out, storage.Root+group+"/")
	case len(out) == 0:
		out = []string{storage.Root + group + "/" + plural + "/"}
	}
	return out
}

// run rewrites what is not stored as the configuration says, now and whenever
// it has changed, until ctx ends.
func (e *encryption) run(ctx context.Context) error {
	ticker := e.clock.NewTicker(encryptionPoll)
	defer ticker.Stop()
	pending, complaint := true, ""
	complain := func(msg string, err error) {
		if text := msg + err.Error(); text != complaint && ctx.Err() == nil {
			e.log.Error(msg, "file", e.file, "error", err)
			complaint = text
		}
	}
	for {
		if pending {
			if err := e.rewrite(ctx); err != nil {
				complain("Stored values have not been rewritten as the encryption configuration says: it is tried again", err)
			} else {
				pending, complaint = false, ""
			}
		}
		select {
		case <-ticker.C():
		case <-ctx.Done():
			return nil
		}
		changed, err := e.reload()
		if err != nil {
			complain("The encryption configuration cannot be used: the one before stays in force", err)
		}
		pending = pending || changed
	}
}

// reload takes over the file's content when that has changed.
func (e *encryption) reload() (changed bool, err error) {
	data, err := os.ReadFile(e.file)
	if err != nil || sha256.Sum256(data) == sha256.Sum256(e.loaded) {
		return false, err
	}
	rules, err := encryptionRules(e.table, data)
	if err != nil {
		return false, err
	}
	e.backend.SetRules(rules)
	e.loaded = data
	e.log.Info("A changed encryption configuration is in force", "file", e.file)
	return true, nil
}

func (e *encryption) rewrite(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, rewriteLimit)
	defer cancel()
	done, err := e.backend.Rewrite(ctx)
	if err != nil {
		return err
	}
	if done.Changed > 0 {
		e.log.Info("Stored values have been rewritten as the encryption configuration says", "values", done.Changed)
	}
	if done.Unreadable > 0 {
		return fmt.Errorf("%d values cannot be opened, the first is %s: add the key with which they were written", done.Unreadable, done.First)
	}
	return pki.MarkEncryptionDone(e.file, e.loaded)
}
