package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"
)

// Mode says whether requests wait for their events to be where they belong.
type Mode string

// The modes, by kube-apiserver's names.
const (
	// ModeBatch collects events: no request waits.
	ModeBatch Mode = "batch"
	// ModeBlocking has each stage of a request wait; one whose event is lost goes
	// on.
	ModeBlocking Mode = "blocking"
	// ModeBlockingStrict is ModeBlocking, but a request is refused when the event
	// that it has come is lost. A policy that omits that stage refuses nothing.
	ModeBlockingStrict Mode = "blocking-strict"
)

// ParseMode reads the name of a mode; empty is ModeBatch.
func ParseMode(name string) (Mode, error) {
	switch m := Mode(name); m {
	case "":
		return ModeBatch, nil
	case ModeBatch, ModeBlocking, ModeBlockingStrict:
		return m, nil
	}
	return "", fmt.Errorf("the audit mode %q is not known: use %s, %s or %s", name, ModeBatch, ModeBlocking, ModeBlockingStrict)
}

func (m Mode) blocks() bool { return m == ModeBlocking || m == ModeBlockingStrict }

// errLost is a lost event of a backend in ModeBlockingStrict.
var errLost = errors.New("the audit event could not be stored")

// now gives the event to the backends whose modes make requests wait. The error
// is one of a strict backend.
func (l *Log) now(line []byte) error {
	var strict error
	if l.writes() && l.cfg.Mode.blocks() {
		if err := l.fileNow(line); err != nil && l.cfg.Mode == ModeBlockingStrict {
			strict = errLost
		}
	}
	if hook := l.cfg.Webhook; hook != nil && hook.cfg.Mode.blocks() {
		if err := hook.sendNow(line); err != nil && hook.cfg.Mode == ModeBlockingStrict {
			strict = errLost
		}
	}
	return strict
}

// fileNow writes a line to the file.
func (l *Log) fileNow(line []byte) error {
	l.fileMu.Lock()
	defer l.fileMu.Unlock()
	err := l.writeFile(line)
	if err != nil {
		l.dropped.Add(1)
		l.cfg.Log.Error("The audit log cannot be written", "path", l.cfg.Path, "error", err)
	}
	return err
}

// sendNow gives one event to the webhook, trying again for a while.
func (w *Webhook) sendNow(line []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), sendTimeout)
	defer cancel()
	return w.send(ctx, ctx.Done(), [][]byte{bytes.TrimSuffix(line, []byte("\n"))})
}

// waitFor is the time before another try, which hurry and ctx cut short.
func waitFor(ctx context.Context, hurry <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-hurry:
	case <-ctx.Done():
	}
}
