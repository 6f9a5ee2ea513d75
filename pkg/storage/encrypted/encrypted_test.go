package encrypted_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"coracle/pkg/storage"
	"coracle/pkg/storage/encrypted"
	"coracle/pkg/storage/memory"
	"coracle/pkg/storage/storagetest"
)

const (
	secretKey = "/registry/secrets/default/a"
	canary    = "canary-4711"
)

func key(c encrypted.Cipher, name string, fill byte) encrypted.Key {
	return encrypted.Key{Cipher: c, Name: name, Secret: bytes.Repeat([]byte{fill}, 32)}
}

func rules(t testing.TB, r ...encrypted.Rule) *encrypted.Rules {
	t.Helper()
	out, err := encrypted.NewRules(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func secrets(t testing.TB, plain bool, keys ...encrypted.Key) *encrypted.Rules {
	return rules(t, encrypted.Rule{Prefixes: []string{"/registry/secrets/"}, Keys: keys, Plain: plain})
}

func newMemory(t testing.TB) *memory.Store {
	s := memory.New(memory.Config{})
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestBackend(t *testing.T) {
	for _, cipher := range []encrypted.Cipher{encrypted.AESGCM, encrypted.Secretbox} {
		t.Run(string(cipher), func(t *testing.T) {
			storagetest.Run(t, storagetest.Options{
				Open: func(t *testing.T) storage.Backend {
					all := rules(t, encrypted.Rule{Prefixes: []string{"/registry/"}, Keys: []encrypted.Key{key(cipher, "k", 1)}})
					return encrypted.New(newMemory(t), all, rand.Reader)
				},
				ShortTTL: 50 * time.Millisecond,
				MaxTTL:   time.Second,
			})
		})
	}
}

func mustPut(t *testing.T, b storage.Backend, key, value string, expect storage.Revision) storage.Revision {
	t.Helper()
	rev, err := b.Put(t.Context(), key, []byte(value), expect, 0)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func read(t *testing.T, b storage.Backend, key string) string {
	t.Helper()
	kv, _, err := b.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(kv.Value)
}

// TestStoredForm: what is stored has kube-apiserver's prefix, no trace of the
// plain value, and differs each time; other resources are left alone.
func TestStoredForm(t *testing.T) {
	inner := newMemory(t)
	b := encrypted.New(inner, secrets(t, true, key(encrypted.AESGCM, "key1", 1)), rand.Reader)
	rev := mustPut(t, b, secretKey, canary, 0)
	first := read(t, inner, secretKey)
	if !strings.HasPrefix(first, "k8s:enc:aesgcm:v1:key1:") || strings.Contains(first, canary) {
		t.Errorf("stored as %q", first)
	}
	mustPut(t, b, secretKey, canary, rev)
	if read(t, inner, secretKey) == first {
		t.Error("the same value is stored alike twice: a nonce was used again")
	}
	mustPut(t, b, "/registry/configmaps/default/a", canary, 0)
	if got := read(t, inner, "/registry/configmaps/default/a"); got != canary {
		t.Errorf("a ConfigMap is stored as %q", got)
	}
	if _, err := b.Put(t.Context(), "/registry/secrets/default/b", []byte(first), 0, 0); err == nil {
		t.Error("an encrypted value was taken for a plain one")
	}
}

// TestUnreadable: each kind of value that cannot be opened says why, and the
// one beside it can be read.
func TestUnreadable(t *testing.T) {
	inner := newMemory(t)
	first := encrypted.New(inner, secrets(t, false, key(encrypted.AESGCM, "key1", 1)), rand.Reader)
	mustPut(t, first, secretKey, canary, 0)
	sealed := read(t, inner, secretKey)
	mustPut(t, first, "/registry/secrets/default/good", "good", 0)
	damaged := []byte(sealed)
	damaged[len(damaged)-1] ^= 1
	for _, c := range []struct{ name, stored, want string }{
		{"moved", sealed, "was stored for another object"},
		{"damaged", string(damaged), "damaged"},
		{"short", sealed[:30], "damaged"},
		{"plain", "plain", "lists no identity provider"},
		{"foreign", "k8s:enc:kms:v2:cloud:xxxx", `key "cloud" (kms), which the encryption configuration does not have`},
		{"odd", "k8s:enc:", "unknown"},
	} {
		t.Run(c.name, func(t *testing.T) {
			at := "/registry/secrets/default/x-" + c.name
			rev := mustPut(t, inner, at, c.stored, 0)
			page, err := first.Range(t.Context(), "/registry/secrets/", storage.RangeOptions{})
			if err != nil || len(page.Items) != 3 || string(page.Items[1].Value) != "good" {
				t.Fatalf("beside it: %v, %v", page, err)
			}
			reason, unreadable := storage.UnreadableReason(page.Items[2].Value)
			if !unreadable || !strings.Contains(reason, c.want) {
				t.Errorf("reason %q, want %q", reason, c.want)
			}
			if _, err := inner.Delete(t.Context(), at, rev); err != nil {
				t.Fatal(err)
			}
		})
	}
	if reason, unreadable := storage.UnreadableReason([]byte(sealed)); !unreadable || !strings.Contains(reason, "no encryption configuration") {
		t.Errorf("without any configuration: %q", reason)
	}
}

// TestRotation: values of the store before encryption, of the old key and of
// the new one are read alike; a rewrite brings all to the new key, may be
// ended and repeated, and leaves events and foreign values alone.
func TestRotation(t *testing.T) {
	inner := newMemory(t)
	mustPut(t, inner, "/registry/secrets/default/plain", "plain", 0)
	old, fresh := key(encrypted.AESGCM, "key1", 1), key(encrypted.AESGCM, "key2", 2)
	all := func(keys ...encrypted.Key) *encrypted.Rules {
		return rules(t, encrypted.Rule{Prefixes: []string{"/registry/secrets/", "/registry/events/"}, Keys: keys, Plain: true})
	}
	b := encrypted.New(inner, all(old), rand.Reader)
	mustPut(t, b, secretKey, "old", 0)
	mustPut(t, b, "/registry/events/default/e", "event", 0)
	mustPut(t, inner, "/registry/secrets/default/z", "k8s:enc:aesgcm:v1:lost:0123", 0)
	b.SetRules(all(fresh, old))

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Rewrite(ended); !errors.Is(err, context.Canceled) {
		t.Fatalf("a rewrite that was ended: %v", err)
	}
	w, err := b.Watch(t.Context(), "/registry/", storage.WatchOptions{Prev: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	done, err := b.Rewrite(t.Context())
	if err != nil || done.Changed != 2 || done.Unreadable != 1 || done.First != "/registry/secrets/default/z" {
		t.Fatalf("rewritten: %+v, %v", done, err)
	}
	if done, err := b.Rewrite(t.Context()); err != nil || done.Changed != 0 {
		t.Errorf("once more: %+v, %v", done, err)
	}
	for at, want := range map[string]string{"plain": "plain", "a": "old"} {
		at = "/registry/secrets/default/" + at
		if stored := read(t, inner, at); !strings.HasPrefix(stored, "k8s:enc:aesgcm:v1:key2:") {
			t.Errorf("%s is stored as %q", at, stored)
		}
		if got := read(t, b, at); got != want {
			t.Errorf("%s reads %q, want %q", at, got, want)
		}
	}
	if stored := read(t, inner, "/registry/events/default/e"); !strings.HasPrefix(stored, "k8s:enc:aesgcm:v1:key1:") {
		t.Errorf("an event lost its time to live: %q", stored)
	}
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	batch, err := w.Next(ctx)
	if err != nil || len(batch.Events) == 0 || string(batch.Events[0].KV.Value) != "old" || string(batch.Events[0].Prev.Value) != "old" {
		t.Errorf("watchers see %+v, %v", batch, err)
	}
	// Back to plain values, with the keys behind identity.
	b.SetRules(rules(t, encrypted.Rule{Prefixes: []string{"/registry/secrets/"}, Keys: []encrypted.Key{fresh}, Plain: true, PlainFirst: true}))
	if done, err := b.Rewrite(t.Context()); err != nil || done.Changed != 2 || read(t, inner, secretKey) != "old" {
		t.Errorf("decrypted: %+v, %v", done, err)
	}
}

func TestBadRules(t *testing.T) {
	good := key(encrypted.AESGCM, "k", 1)
	for want, r := range map[string]encrypted.Rule{
		"no colon":       {Keys: []encrypted.Key{key(encrypted.AESGCM, "a:b", 1)}},
		"16, 24 or 32":   {Keys: []encrypted.Key{{Cipher: encrypted.AESGCM, Name: "k", Secret: []byte("short")}}},
		"takes 32":       {Keys: []encrypted.Key{{Cipher: encrypted.Secretbox, Name: "k", Secret: []byte("short")}}},
		"unknown cipher": {Keys: []encrypted.Key{{Cipher: "rot13", Name: "k"}}},
		"twice":          {Keys: []encrypted.Key{good, good}},
		"neither a key":  {},
	} {
		if _, err := encrypted.NewRules([]encrypted.Rule{r}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// FuzzOpen: what an attacker puts into the store never opens and never panics.
func FuzzOpen(f *testing.F) {
	inner := newMemory(f)
	b := encrypted.New(inner, secrets(f, false, key(encrypted.AESGCM, "k", 1), key(encrypted.Secretbox, "s", 2)), rand.Reader)
	f.Add([]byte("k8s:enc:aesgcm:v1:k:0123456789012345678901234567"))
	f.Add([]byte("k8s:enc:secretbox:v1:s:0123456789012345678901234567012345678901234567"))
	f.Add([]byte("k8s:enc:a"))
	rev := storage.Revision(0)
	f.Fuzz(func(t *testing.T, stored []byte) {
		var err error
		if rev, err = inner.Put(t.Context(), secretKey, stored, rev, 0); err != nil {
			t.Fatal(err)
		}
		kv, _, err := b.Get(t.Context(), secretKey)
		if err != nil {
			t.Fatal(err)
		}
		if _, unreadable := storage.UnreadableReason(kv.Value); !unreadable {
			t.Errorf("%q opened as %q", stored, kv.Value)
		}
	})
}

// BenchmarkPutGet is a write and a read of a Secret of 1 KB, without and with
// encryption.
func BenchmarkPutGet(b *testing.B) {
	value := bytes.Repeat([]byte("x"), 1024)
	for name, rs := range map[string]*encrypted.Rules{"plain": rules(b), "aesgcm": secrets(b, true, key(encrypted.AESGCM, "k", 1))} {
		b.Run(name, func(b *testing.B) {
			backend := encrypted.New(newMemory(b), rs, rand.Reader)
			var rev storage.Revision
			for b.Loop() {
				var err error
				if rev, err = backend.Put(b.Context(), secretKey, value, rev, 0); err != nil {
					b.Fatal(err)
				}
				if _, _, err := backend.Get(b.Context(), secretKey); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
