package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/utils/clock"
)

// Config describes a log.
type Config struct {
	// Path is the file, readable for its owner only; empty where there is a
	// Webhook alone.
	Path string
	// Out takes the lines in place of a file. It is not closed, and nothing is put
	// aside.
	Out io.Writer
	// Webhook gets all events as well; nil where there is none.
	Webhook *Webhook
	// Mode says whether requests wait for the file; empty is ModeBatch. That of the
	// Webhook is its own.
	Mode Mode
	// Policy defaults to DefaultPolicy.
	Policy *Policy
	// MaxBytes is the size at which the file is put aside, MaxAge and
	// MaxBackups bound those put aside; 0 is without bound.
	MaxBytes   int64
	MaxAge     time.Duration
	MaxBackups int
	Clock      clock.WithTicker
	Log        *slog.Logger
}

const (
	// maxBuffered bounds the events that wait for the disk, in bytes; from
	// flushAt on they do not wait for flushEvery.
	maxBuffered = 8 << 20
	flushAt     = 256 << 10
	flushEvery  = 200 * time.Millisecond
	backupTime  = "2006-01-02T15-04-05.000000"
)

// Log writes events to a file, and gives them to a webhook.
type Log struct {
	cfg    Config
	policy *Policy
	wake   chan struct{} // of one place: there is much to write

	events, dropped atomic.Int64

	mu  sync.Mutex
	buf []byte // guarded by mu

	fileMu sync.Mutex
	file   *os.File // guarded by fileMu
	size   int64    // guarded by fileMu; of file
}

// New opens the file. Nothing is written until Run.
func New(cfg Config) (*Log, error) {
	if cfg.Policy == nil {
		cfg.Policy = DefaultPolicy()
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	l := &Log{cfg: cfg, policy: cfg.Policy, wake: make(chan struct{}, 1)}
	if !l.writes() && cfg.Webhook == nil {
		return nil, errors.New("an audit log needs a file or a webhook")
	}
	if cfg.Path == "" || cfg.Out != nil {
		return l, nil
	}
	if err := os.MkdirAll(filepath.Dir(cfg.Path), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the audit log: %w", err)
	}
	return l, l.open()
}

// writes says that lines are written, to a file or elsewhere.
func (l *Log) writes() bool { return l.cfg.Path != "" || l.cfg.Out != nil }

func (l *Log) open() error {
	f, err := os.OpenFile(l.cfg.Path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the audit log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("open the audit log: %w", err), f.Close())
	}
	l.file, l.size = f, info.Size()
	return nil
}

// Events is how many events were taken, Dropped how many were lost because the
// disk did not take them.
func (l *Log) Events() int64 { return l.events.Load() }

// Dropped is how many events were lost, on the way to the file or the webhook.
func (l *Log) Dropped() int64 {
	if l.cfg.Webhook != nil {
		return l.dropped.Load() + l.cfg.Webhook.dropped.Load()
	}
	return l.dropped.Load()
}

// write takes the event that encode appends. The error is that of a backend in
// ModeBlockingStrict.
func (l *Log) write(encode func([]byte) []byte) error {
	file, hook := l.writes(), l.cfg.Webhook
	var err error
	if file && l.cfg.Mode.blocks() || hook != nil && hook.cfg.Mode.blocks() {
		line := encode(nil)
		err = l.now(line)
		encode = func(b []byte) []byte { return append(b, line...) }
	}
	file = file && !l.cfg.Mode.blocks()
	if hook != nil && hook.cfg.Mode.blocks() {
		hook = nil
	}
	l.events.Add(1)
	if file || hook != nil {
		l.later(encode, file, hook)
	}
	return err
}

// later keeps the event for Run to write to the file and to send to the hook.
func (l *Log) later(encode func([]byte) []byte, file bool, hook *Webhook) {
	l.mu.Lock()
	if len(l.buf) >= maxBuffered {
		l.mu.Unlock()
		l.events.Add(-1)
		l.dropped.Add(1)
		return
	}
	begin := len(l.buf)
	l.buf = encode(l.buf)
	if hook != nil {
		hook.put(l.buf[begin:])
	}
	if !file {
		l.buf = l.buf[:begin]
	}
	much := len(l.buf) >= flushAt
	l.mu.Unlock()
	if much {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// Run writes until ctx ends and all events are where they belong, or the webhook
// has not taken them in time. It is run once.
func (l *Log) Run(ctx context.Context) error {
	var g errgroup.Group
	if l.cfg.Webhook != nil {
		g.Go(func() error { l.cfg.Webhook.run(ctx); return nil })
	}
	if l.writes() {
		g.Go(func() error { return l.writeAll(ctx) })
	}
	return g.Wait()
}

// writeAll writes to the file until ctx ends and all events are there.
func (l *Log) writeAll(ctx context.Context) error {
	ticker := l.cfg.Clock.NewTicker(flushEvery)
	defer ticker.Stop()
	var spare []byte
	var told int64
	for {
		ended := false
		select {
		case <-ticker.C():
		case <-l.wake:
		case <-ctx.Done():
			ended = true
		}
		spare = l.flush(spare)
		if n := l.dropped.Load(); n > told {
			l.cfg.Log.Error("The audit log has lost events: the disk does not take them", "path", l.cfg.Path, "lost", n-told)
			told = n
		}
		if ended {
			return l.closeFile()
		}
	}
}

func (l *Log) closeFile() error {
	l.fileMu.Lock()
	defer l.fileMu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil // who comes later opens it again
	return err
}

// flush writes what has come and returns its room for what comes next.
func (l *Log) flush(spare []byte) []byte {
	l.mu.Lock()
	out := l.buf
	l.buf = spare[:0]
	l.mu.Unlock()
	if len(out) == 0 {
		return out
	}
	l.fileMu.Lock()
	err := l.writeFile(out)
	l.fileMu.Unlock()
	if err != nil {
		l.dropped.Add(int64(strings.Count(string(out), "\n")))
		l.cfg.Log.Error("The audit log cannot be written", "path", l.cfg.Path, "error", err)
	}
	if cap(out) > 2*flushAt {
		return nil // the burst is over
	}
	return out
}

// writeFile writes to the file, which it opens or puts aside where that is
// needed. fileMu is held.
func (l *Log) writeFile(out []byte) error {
	if l.cfg.Out != nil {
		_, err := l.cfg.Out.Write(out)
		return err
	}
	if l.file != nil && l.cfg.MaxBytes > 0 && l.size > 0 && l.size+int64(len(out)) > l.cfg.MaxBytes {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	if l.file == nil {
		if err := l.open(); err != nil {
			return err
		}
	}
	n, err := l.file.Write(out)
	l.size += int64(n)
	return err
}

// rotate puts the file aside and deletes those that are too many or too old.
func (l *Log) rotate() error {
	now := l.cfg.Clock.Now().UTC()
	stem, ext := l.stem()
	err := errors.Join(l.file.Close(), os.Rename(l.cfg.Path, stem+now.Format(backupTime)+ext))
	l.file = nil
	if err != nil {
		return fmt.Errorf("put the audit log aside: %w", err)
	}
	return l.prune(now)
}

func (l *Log) stem() (stem, ext string) {
	ext = filepath.Ext(l.cfg.Path)
	return strings.TrimSuffix(l.cfg.Path, ext) + "-", ext
}

func (l *Log) prune(now time.Time) error {
	stem, ext := l.stem()
	entries, err := os.ReadDir(filepath.Dir(l.cfg.Path))
	if err != nil {
		return fmt.Errorf("look for old audit logs: %w", err)
	}
	kept := 0
	var errs []error
	for i := len(entries) - 1; i >= 0; i-- { // the newest first, as their names are ordered
		path := filepath.Join(filepath.Dir(l.cfg.Path), entries[i].Name())
		made, err := time.Parse(backupTime, strings.TrimSuffix(strings.TrimPrefix(path, stem), ext))
		if !strings.HasPrefix(path, stem) || err != nil {
			continue
		}
		kept++
		if l.cfg.MaxBackups > 0 && kept > l.cfg.MaxBackups || l.cfg.MaxAge > 0 && now.Sub(made) > l.cfg.MaxAge {
			errs = append(errs, os.Remove(path))
		}
	}
	return errors.Join(errs...)
}
