package main

import (
	"os"
	"path/filepath"
	"testing"

	"coracle/pkg/image"
)

// TestImagesAreReproducible builds all images in two folders, and once more in
// the first.
func TestImagesAreReproducible(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for _, dir := range []string{a, b} {
		if err := run(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
	}
	before := map[string]os.FileInfo{}
	for _, r := range recipes {
		one, err := os.ReadFile(filepath.Join(a, r.file))
		if err != nil {
			t.Fatal(err)
		}
		two, err := os.ReadFile(filepath.Join(b, r.file))
		if err != nil {
			t.Fatal(err)
		}
		if string(one) != string(two) {
			t.Errorf("%s differs from build to build", r.file)
		}
		checkRefs(t, filepath.Join(a, r.file), r.refs)
		if before[r.file], err = os.Stat(filepath.Join(a, r.file)); err != nil {
			t.Fatal(err)
		}
	}
	if err := run(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	for file, was := range before {
		if is, err := os.Stat(filepath.Join(a, file)); err != nil || !os.SameFile(was, is) {
			t.Errorf("%s was written again without a change (%v)", file, err)
		}
	}
}

func checkRefs(t *testing.T, file string, want []string) {
	t.Helper()
	archive, err := image.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	have := map[string]bool{}
	for _, n := range archive.Images {
		have[n.Ref] = true
	}
	for _, ref := range want {
		if !have[ref] || len(have) != len(want) {
			t.Errorf("%s holds %v, want %v", file, have, want)
		}
	}
}
