package pki

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseEncryption(t *testing.T) {
	head := "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n"
	good := head + "resources: [{resources: [secrets, '*.apps'], providers: [{aesgcm: {keys: [{name: k, secret: c2VjcmV0c2VjcmV0MTIzNA==}]}}, {identity: {}}]}]"
	cfg, err := ParseEncryption([]byte(good))
	if err != nil || string(cfg.Resources[0].Providers[0].AESGCM.Keys[0].Secret) != "secretsecret1234" || cfg.Resources[0].Providers[1].Identity == nil {
		t.Fatalf("%+v, %v", cfg, err)
	}
	for text, want := range map[string]string{
		"kind: Pod": "want apiVersion",
		head + "resources: [{resources: [secrets], providers: [{kms: {}}]}]":                                            `unknown field "kms"`,
		head + "resources: [{resources: [secrets]}]":                                                                    "needs resources and providers",
		head + "resources: [{resources: [secrets], providers: [{}]}]":                                                   "has 0 providers",
		head + "resources: [{resources: [secrets], providers: [{aesgcm: {keys: []}}]}]":                                 "has no key",
		head + "resources: [{resources: [secrets], providers: [{aesgcm: {keys: [{name: k, secret: 'top secret!'}]}}]}]": "not base64",
		"{": "not YAML",
		strings.Repeat("#", maxEncryptionBytes+1): "larger than",
	} {
		_, err := ParseEncryption([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "top") {
			t.Errorf("%.80q: %v, want %q", text, err, want)
		}
	}
}

// TestRotateEncryption: a rotation begins when the one before has ended, and
// three keys are kept.
func TestRotateEncryption(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pki", EncryptionFile)
	data, err := LoadOrCreateEncryption(path, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := LoadOrCreateEncryption(path, rand.Reader); err != nil || string(again) != string(data) {
		t.Fatalf("the file was made twice: %v", err)
	}
	if begun, err := RotateEncryption(path, rand.Reader); begun || err != nil {
		t.Errorf("rotated before all values were rewritten: %t, %v", begun, err)
	}
	for range 4 {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := MarkEncryptionDone(path, data); err != nil {
			t.Fatal(err)
		}
		if begun, err := RotateEncryption(path, rand.Reader); !begun || err != nil {
			t.Fatalf("rotate: %t, %v", begun, err)
		}
		if done, err := EncryptionDone(path); done || err != nil {
			t.Errorf("done before anybody rewrote: %v", err)
		}
	}
	if data, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	cfg, err := ParseEncryption(data)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, k := range cfg.Resources[0].Providers[0].AESGCM.Keys {
		names = append(names, k.Name)
	}
	if got := strings.Join(names, " "); got != "key5 key4 key3" {
		t.Errorf("keys %s", got)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info, err)
	}
}

func FuzzParseEncryption(f *testing.F) {
	f.Add([]byte("apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources: [{resources: [secrets], providers: [{identity: {}}]}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := ParseEncryption(data)
		if (cfg == nil) == (err == nil) {
			t.Errorf("%v, %v", cfg, err)
		}
	})
}
