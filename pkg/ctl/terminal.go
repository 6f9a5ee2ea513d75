package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
	"k8s.io/streaming/pkg/httpstream"
)

// console is the user's side of a remote command.
type console struct {
	stdin io.Reader // nil for none
	out   io.Writer // where its output goes
	tty   bool
}

// isTerminal returns the file behind a stream when it is a terminal.
func isTerminal(stream any) (*os.File, bool) {
	f, ok := stream.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

// console says what is wired up for -i and -t. Without a terminal, -t is left
// out, and said so.
func (t *tool) console(interactive, tty bool) console {
	c := console{out: t.Out}
	if interactive {
		c.stdin = t.In
	}
	if tty {
		_, in := isTerminal(t.In)
		if c.tty = in && interactive; !c.tty {
			fmt.Fprintln(t.Err, "The input is no terminal, so -t is left out")
		}
	}
	return c
}

// stream runs a remote command: WebSocket first, SPDY where that is not
// known. The error carries the command's exit code.
func (t *tool) stream(ctx context.Context, req *rest.Request, c console) error {
	cfg, err := t.config()
	if err != nil {
		return err
	}
	ws, err := remotecommand.NewWebSocketExecutor(cfg, "GET", req.URL().String())
	if err != nil {
		return err
	}
	spdy, err := remotecommand.NewSPDYExecutor(cfg, "POST", req.URL())
	if err != nil {
		return err
	}
	executor, err := remotecommand.NewFallbackExecutor(ws, spdy, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	if err != nil {
		return err
	}
	opts := remotecommand.StreamOptions{Stdin: c.stdin, Stdout: c.out, Tty: c.tty}
	if !c.tty {
		opts.Stderr = t.Err
	} else {
		restore, sizes, err := rawTerminal(ctx, t.In)
		if err != nil {
			return err
		}
		defer restore()
		opts.TerminalSizeQueue = sizes
	}
	err = executor.StreamWithContext(ctx, opts)
	var code exec.CodeExitError
	if errors.As(err, &code) {
		return &exitError{code: code.Code, err: fmt.Errorf("the command ended with exit code %d", code.Code)}
	}
	return err
}

// rawTerminal hands the keys to the remote side as they are pressed. restore
// gives the terminal back.
func rawTerminal(ctx context.Context, in io.Reader) (restore func(), sizes remotecommand.TerminalSizeQueue, err error) {
	f, ok := isTerminal(in)
	if !ok {
		return nil, nil, errors.New("the input is no terminal")
	}
	fd := int(f.Fd())
	state, err := term.MakeRaw(fd)
	if err != nil {
		return nil, nil, fmt.Errorf("prepare the terminal: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	changes := make(chan os.Signal, 1)
	signal.Notify(changes, syscall.SIGWINCH)
	changes <- syscall.SIGWINCH // the first size is sent at once
	restore = func() {
		signal.Stop(changes)
		cancel()
		_ = term.Restore(fd, state) // nothing can be done about a terminal that is gone
	}
	return restore, &sizeQueue{ctx: ctx, fd: fd, changes: changes}, nil
}

// sizeQueue tells the remote side how large the terminal is.
type sizeQueue struct {
	ctx     context.Context // of the session; Next has no parameter for it
	fd      int
	changes <-chan os.Signal
}

// Next blocks until the size changes; nil at the end of the session.
func (q *sizeQueue) Next() *remotecommand.TerminalSize {
	for {
		select {
		case <-q.ctx.Done():
			return nil
		case <-q.changes:
			if w, h, err := term.GetSize(q.fd); err == nil {
				return &remotecommand.TerminalSize{Width: uint16(w), Height: uint16(h)}
			}
		}
	}
}
