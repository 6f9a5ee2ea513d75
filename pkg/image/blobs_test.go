package image

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func TestBlobsAreWrittenOnce(t *testing.T) {
	dir := t.TempDir()
	blobs, err := NewBlobs(dir)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := testImage(t, "a").Layers()
	if err != nil {
		t.Fatal(err)
	}
	h, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	stores := []string{filepath.Join(dir, "one"), filepath.Join(dir, "two"), filepath.Join(dir, "one")}
	errs := make([]error, len(stores))
	var wg sync.WaitGroup
	for i, store := range stores {
		wg.Go(func() { errs[i] = blobs.link(layers[0], store) })
	}
	wg.Wait()
	var files []os.FileInfo
	for i, store := range stores {
		st, err := os.Stat(filepath.Join(store, "blobs", "sha256", h.Hex))
		if errs[i] != nil || err != nil {
			t.Fatal(errs[i], err)
		}
		files = append(files, st)
	}
	if !os.SameFile(files[0], files[1]) {
		t.Error("two stores hold two copies")
	}
	if err := blobs.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(stores[0], "blobs", "sha256", h.Hex)); err != nil || int64(len(got)) != files[0].Size() {
		t.Errorf("after Close the store holds %d bytes, %v", len(got), err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".blobs-*")); err != nil || len(left) > 0 {
		t.Errorf("Close left %v, %v", left, err)
	}
}

// lyingLayer claims a digest that its content does not have.
type lyingLayer struct{ v1.Layer }

func (lyingLayer) Digest() (v1.Hash, error) {
	return v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}, nil
}

func TestBlobsCheckContent(t *testing.T) {
	blobs, err := NewBlobs(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer blobs.Close()
	layers, err := testImage(t, "a").Layers()
	if err != nil {
		t.Fatal(err)
	}
	store := t.TempDir()
	if err := blobs.link(lyingLayer{layers[0]}, store); err == nil || !strings.Contains(err.Error(), "digest") {
		t.Errorf("a layer with a wrong digest: %v", err)
	}
	if found, err := filepath.Glob(filepath.Join(store, "blobs", "*", "*")); err != nil || len(found) > 0 {
		t.Errorf("the store holds %v, %v", found, err)
	}
}
