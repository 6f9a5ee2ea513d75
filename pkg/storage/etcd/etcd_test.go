package etcd_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"coracle/pkg/storage"
	"coracle/pkg/storage/etcd"
	"coracle/pkg/storage/storagetest"
)

func open(t *testing.T, dir string) *etcd.Store {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, err := etcd.StartEmbedded(ctx, etcd.Config{
		DataDir:       dir,
		UnsafeNoFsync: true,
		Log:           slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestBackend(t *testing.T) {
	storagetest.Run(t, storagetest.Options{
		Open: func(t *testing.T) storage.Backend {
			s := open(t, t.TempDir())
			t.Cleanup(func() { _ = s.Close() })
			return s
		},
		ShortTTL: time.Second,
		MaxTTL:   10 * time.Second,
	})
}
