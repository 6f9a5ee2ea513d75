package logs

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"k8s.io/utils/clock"
)

// RotatorConfig is what a Rotator needs.
type RotatorConfig struct {
	// Containers lists the running containers. Required.
	Containers func() []Container
	// Reopen asks the runtime to open the log of a container anew. Required.
	Reopen func(ctx context.Context, containerID string) error
	// MaxSize in bytes starts a rotation, 10 MiB if 0; MaxFiles is how many
	// files of a container are kept, the current one included, 5 if 0 and at
	// least 2.
	MaxSize  int64
	MaxFiles int
	// Interval is the time between two looks at all logs, 10 s if 0.
	Interval time.Duration
	// Clock is the real clock if nil.
	Clock clock.WithTicker
	// Log discards if nil.
	Log *slog.Logger
}

// Container is a running container whose log may need rotation.
type Container struct {
	// ID is the runtime's.
	ID string
	// PodDir and Name as in File.
	PodDir, Name string
}

// Rotator keeps logs small: a log that has grown too large gets another name,
// older ones are compressed, the oldest go.
type Rotator struct{ cfg RotatorConfig }

// NewRotator makes a Rotator.
func NewRotator(cfg RotatorConfig) *Rotator {
	if cfg.MaxSize <= 0 {
		cfg.MaxSize = 10 << 20
	}
	if cfg.MaxFiles == 0 {
		cfg.MaxFiles = 5
	}
	cfg.MaxFiles = max(cfg.MaxFiles, 2)
	if cfg.Interval <= 0 {
		cfg.Interval = 10 * time.Second
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Rotator{cfg: cfg}
}

// Run rotates logs until ctx ends.
func (r *Rotator) Run(ctx context.Context) error {
	ticker := r.cfg.Clock.NewTicker(r.cfg.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
			r.Rotate(ctx)
		}
	}
}

// Rotate looks at all logs once. What fails is logged and tried again next time.
func (r *Rotator) Rotate(ctx context.Context) {
	for _, c := range r.cfg.Containers() {
		if ctx.Err() != nil {
			return
		}
		if err := r.rotate(ctx, c); err != nil && !isGone(err) {
			r.cfg.Log.Warn("a container's log could not be rotated", "container", c.ID, "log", c.Name, "err", err)
		}
	}
}

func (r *Rotator) rotate(ctx context.Context, c Container) error {
	dir, err := openFolder(c.PodDir, c.Name)
	if err != nil {
		return err
	}
	defer dir.close()
	current, err := dir.open(dir.base)
	if err != nil {
		return err
	}
	info, err := current.Stat()
	current.Close()
	if err != nil || info.Size() < r.cfg.MaxSize {
		return err
	}
	// Everything below happens in this one folder.
	root, err := os.OpenRoot("/proc/self/fd/" + strconv.Itoa(dir.fd))
	if err != nil {
		return err
	}
	defer root.Close()
	if err := r.shrink(ctx, dir, root); err != nil {
		return err
	}
	older := dir.base + "." + r.cfg.Clock.Now().UTC().Format(stampLayout)
	if _, err := root.Lstat(older); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is there already: the log grows faster than once a second", older)
	}
	if err := root.Rename(dir.base, older); err != nil {
		return err
	}
	if err := r.cfg.Reopen(ctx, c.ID); err != nil {
		// The runtime goes on writing to the old file: it gets its name back.
		return errors.Join(fmt.Errorf("reopening the log: %w", err), root.Rename(older, dir.base))
	}
	return nil
}

// shrink removes the oldest files and compresses the others, so that the file
// about to be rotated fits in.
func (r *Rotator) shrink(ctx context.Context, dir *folder, root *os.Root) error {
	names, err := dir.rotated()
	if err != nil {
		return err
	}
	for len(names) > r.cfg.MaxFiles-2 {
		if err := removeIfThere(root, names[0]); err != nil {
			return err
		}
		names = names[1:]
	}
	for _, name := range names {
		if strings.HasSuffix(name, gzipSuffix) {
			continue
		}
		if err := compress(ctx, dir, root, name); err != nil {
			return err
		}
	}
	return nil
}

// compress replaces a file by its compressed form. Readers find one or the other.
func compress(ctx context.Context, dir *folder, root *os.Root, name string) error {
	src, err := dir.open(name)
	if err != nil {
		return err
	}
	defer src.Close()
	temporary := name + ".tmp"
	if err := removeIfThere(root, temporary); err != nil {
		return err
	}
	dst, err := root.OpenFile(temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	z := gzip.NewWriter(dst)
	_, err = io.Copy(z, readerFunc(func(b []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return src.Read(b)
	}))
	if err = errors.Join(err, z.Close(), dst.Close()); err != nil {
		return errors.Join(fmt.Errorf("compressing %s: %w", name, err), removeIfThere(root, temporary))
	}
	// The time says which lines are in it; Read relies on that.
	if info, err := src.Stat(); err == nil {
		if err := root.Chtimes(temporary, info.ModTime(), info.ModTime()); err != nil {
			return err
		}
	}
	if err := root.Rename(temporary, name+gzipSuffix); err != nil {
		return err
	}
	return root.Remove(name)
}

func removeIfThere(root *os.Root, name string) error {
	if err := root.Remove(name); err != nil && !isGone(err) {
		return err
	}
	return nil
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }
