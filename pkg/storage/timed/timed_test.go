package timed_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"coracle/pkg/storage"
	"coracle/pkg/storage/memory"
	"coracle/pkg/storage/timed"
)

func TestObserve(t *testing.T) {
	type request struct {
		Operation, Key string
		Failed         bool
	}
	var got []request
	b := timed.New(memory.New(memory.Config{}), func(operation, key string, _ time.Duration, err error) {
		got = append(got, request{operation, key, err != nil})
	})
	ctx := t.Context()
	rev, err := b.Put(ctx, "/registry/pods/a/b", []byte("x"), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Get(ctx, "/registry/pods/a/b"); err != nil {
		t.Fatal(err)
	}
	if rev, err = b.Put(ctx, "/registry/pods/a/b", []byte("y"), rev, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Range(ctx, "/registry/pods/", storage.RangeOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Delete(ctx, "/registry/pods/a/b", rev); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Get(ctx, "/registry/pods/a/b"); !errors.Is(err, storage.ErrNotFound) {
		t.Fatalf("got %v, want ErrNotFound", err)
	}
	key := "/registry/pods/a/b"
	want := []request{{"create", key, false}, {"get", key, false}, {"update", key, false}, {"list", "/registry/pods/", false}, {"delete", key, false}, {"get", key, true}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("observed (-want +got):\n%s", diff)
	}
}
