package storage_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"coracle/pkg/storage"
	"coracle/pkg/storage/memory"
)

func TestKey(t *testing.T) {
	tests := []struct {
		resource, namespace, name string
		want                      string // empty: refused
	}{
		{"pods", "default", "web-0", "/registry/pods/default/web-0"},
		{"minions", "", "node-1", "/registry/minions/node-1"},
		{"services/specs", "default", "kubernetes", "/registry/services/specs/default/kubernetes"},
		{"clusterroles", "", "system:node", "/registry/clusterroles/system:node"},
		{"pods", "default", "", ""},
		{"pods", "default", "..", ""},
		{"pods", "..", "a", ""},
		{"pods", "default", "a/b", ""},
		{"pods", "default", "a%2fb", ""},
		{"pods", "default", "a\x00", ""},
		{"pods", "a/b", "c", ""},
		{"", "", "a", ""},
		{"pods/../secrets", "", "a", ""},
		{"pods", "default", strings.Repeat("x", 1025), ""},
	}
	for _, test := range tests {
		got, err := storage.Key(test.resource, test.namespace, test.name)
		if got != test.want || (test.want == "") != errors.Is(err, storage.ErrInvalidKey) {
			t.Errorf("Key(%q, %q, %q) = %q, %v, want %q", test.resource, test.namespace, test.name, got, err, test.want)
		}
	}
}

// FuzzKey shows that no namespace or name leads out of the prefix of its
// resource and namespace, nor two different ones to one key.
func FuzzKey(f *testing.F) {
	for _, s := range []string{"a", "..", "%2e%2e", "a/b", "a\x00b", ".", ""} {
		f.Add(s, s, s+"x")
	}
	f.Fuzz(func(t *testing.T, namespace, name, other string) {
		key, err := storage.Key("pods", namespace, name)
		if err != nil {
			return
		}
		prefix, err := storage.Prefix("pods", namespace)
		if err != nil || !strings.HasPrefix(key, prefix) || strings.ContainsAny(key[len(prefix):], "/%\x00") {
			t.Errorf("key %q, prefix %q, %v", key, prefix, err)
		}
		if second, err := storage.Key("pods", namespace, other); err == nil && (second == key) != (other == name) {
			t.Errorf("%q and %q have keys %q and %q", name, other, key, second)
		}
		if err := storage.CheckAfter(prefix, key); err != nil {
			t.Errorf("CheckAfter(%q, %q): %v", prefix, key, err)
		}
		if err := storage.CheckAfter(prefix, other); err == nil && !strings.HasPrefix(other, prefix) {
			t.Errorf("CheckAfter(%q, %q) is accepted", prefix, other)
		}
	})
}

// TestCompactor runs an hour of virtual time: nothing is compacted while
// nothing changes, and the history of the last interval always stays.
func TestCompactor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New(memory.Config{})
		defer s.Close()
		var done []storage.Revision
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- storage.Compactor{Backend: s, Done: func(to storage.Revision) { done = append(done, to) }}.Run(ctx)
		}()
		at := map[time.Duration]storage.Revision{}
		for minute := range time.Duration(60) {
			// Something changes in the first half hour only.
			if minute < 30 {
				rev, err := s.Put(ctx, "/registry/a/"+minute.String(), nil, 0, 0)
				if err != nil {
					t.Fatal(err)
				}
				at[minute] = rev
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if ago := minute - 4; at[ago] != 0 {
				if _, err := s.Range(ctx, "/registry/", storage.RangeOptions{Revision: at[ago]}); err != nil {
					t.Errorf("in minute %d, the state four minutes before: %v", minute, err)
				}
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if len(done) != 6 || done[5] != at[29] {
			t.Errorf("compacted to %v, want six times, the last to %d", done, at[29])
		}
	})
}

func TestErrors(t *testing.T) {
	if err := error(&storage.CompactedError{Compacted: 7}); !errors.Is(err, storage.ErrCompacted) || !strings.Contains(err.Error(), "7") {
		t.Errorf("%v", err)
	}
	unknown := &storage.OutcomeUnknownError{Err: context.DeadlineExceeded}
	if !errors.Is(unknown, context.DeadlineExceeded) {
		t.Errorf("%v does not show its cause", unknown)
	}
}
