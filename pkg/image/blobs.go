package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Blobs is a folder of layers on the file system that also holds the content
// stores of several runtimes. Layers that are loaded into all of them are
// written and hashed once and then linked, instead of being sent to each.
type Blobs struct {
	dir string
	mu  sync.Mutex
	// ready holds the layers being written or written, by digest, guarded
	// by mu.
	ready map[v1.Hash]func() error
}

// NewBlobs makes a new folder inside parent. Close removes it; what runtimes
// have linked stays theirs.
func NewBlobs(parent string) (*Blobs, error) {
	dir, err := os.MkdirTemp(parent, ".blobs-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for layers: %w", err)
	}
	return &Blobs{dir: dir, ready: map[v1.Hash]func() error{}}, nil
}

// Close removes the folder.
func (b *Blobs) Close() error { return os.RemoveAll(b.dir) }

// link puts a layer into a content store of containerd, where containerd finds
// it when it is asked to take a blob of that digest. The store's folder is as
// seen by this process.
func (b *Blobs) link(l v1.Layer, store string) error {
	h, err := l.Digest()
	if err != nil {
		return err
	}
	b.mu.Lock()
	write, ok := b.ready[h]
	if !ok {
		write = sync.OnceValue(func() error { return b.write(l, h) })
		b.ready[h] = write
	}
	b.mu.Unlock()
	if err := write(); err != nil {
		return fmt.Errorf("write layer %s: %w", h, err)
	}
	dir := filepath.Join(store, "blobs", h.Algorithm)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("link layer %s: %w", h, err)
	}
	if err := os.Link(b.file(h), filepath.Join(dir, h.Hex)); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("link layer %s: %w", h, err)
	}
	return nil
}

func (b *Blobs) file(h v1.Hash) string { return filepath.Join(b.dir, h.Algorithm+"-"+h.Hex) }

// write copies a layer to the disk and checks that it is what its digest says,
// for containerd does not check a blob that it finds.
func (b *Blobs) write(l v1.Layer, want v1.Hash) error {
	from, err := l.Compressed()
	if err != nil {
		return err
	}
	defer from.Close()
	out, err := os.OpenFile(b.file(want), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o444)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := out.ReadFrom(from); err != nil {
		return err
	}
	if _, err := out.Seek(0, 0); err != nil {
		return err
	}
	got, _, err := v1.SHA256(out)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("its content has the digest %s", got)
	}
	return out.Sync()
}
