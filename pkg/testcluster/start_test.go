package testcluster_test

import (
	"testing"

	"coracle/pkg/storage/memory"
	"coracle/pkg/testcluster"
)

// BenchmarkStart starts control planes: over an empty store, which gets the
// default objects, and over one that has them.
func BenchmarkStart(b *testing.B) {
	b.Run("empty", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			testcluster.Start(b)
		}
	})
	b.Run("again", func(b *testing.B) {
		backend := memory.New(memory.Config{})
		defer func() { _ = backend.Close() }()
		b.ReportAllocs()
		for b.Loop() {
			testcluster.Start(b, testcluster.WithBackend(backend))
		}
	})
}
