package plugins

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"k8s.io/utils/clock"
)

// rescanEvery is when the folder is looked at even if no event came: events can
// be lost, and the machine may have run out of watches.
const rescanEvery = 10 * time.Second

// Plugin is what a plugin says of itself.
type Plugin struct {
	// Type is the service that it offers, "CSIPlugin" for one.
	Type string
	// Name is unique among the plugins of a type.
	Name string
	// Endpoint is the socket where the service is: the one that was asked
	// where the plugin names no other.
	Endpoint string
	// Versions of the service's API that the plugin knows.
	Versions []string
}

// Handler takes in the plugins of one type. Calls for one socket follow each
// other; those for different sockets may come at once.
type Handler interface {
	// Register begins to use a plugin, also one of a name that is in use, which
	// the new one replaces. It must end with ctx. The plugin is told of an error,
	// and asked again later.
	Register(ctx context.Context, p Plugin) error
	// Deregister ends the use of a plugin whose socket is gone, unless another
	// one has replaced it. It must not block.
	Deregister(p Plugin)
}

// Config is what a Watcher needs.
type Config struct {
	// Dir is the folder of the sockets. It is made if it is not there.
	Dir string
	// Handlers are the handlers by the type of plugin.
	Handlers map[string]Handler
	Clock    clock.WithTicker // the real clock if nil
	Log      *slog.Logger     // nil discards
}

// Watcher watches the folder.
type Watcher struct {
	cfg Config
	// followers has one for each socket, by path. Run's goroutine owns it.
	followers map[string]*follower
	running   sync.WaitGroup
}

// New makes a Watcher.
func New(cfg Config) *Watcher {
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Dir = filepath.Clean(cfg.Dir)
	return &Watcher{cfg: cfg, followers: map[string]*follower{}}
}

// Why a follower ends, other than with the agent.
var (
	errGone     = errors.New("the plugin's socket is gone")
	errReplaced = errors.New("the plugin's socket was made anew")
)

// Run watches until ctx ends and all that it began has ended.
func (w *Watcher) Run(ctx context.Context) error {
	defer w.running.Wait()
	if err := os.MkdirAll(w.cfg.Dir, 0o750); err != nil {
		return fmt.Errorf("making the folder of plugins: %w", err)
	}
	var events <-chan fsnotify.Event
	var failures <-chan error
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		w.cfg.Log.Warn("the folder of plugins is not watched, only looked at every few seconds", "error", err)
	} else {
		defer notify.Close()
		events, failures = notify.Events, notify.Errors
	}
	for {
		w.look(ctx, notify)
		timer := w.cfg.Clock.NewTimer(rescanEvery)
		select {
		case <-ctx.Done():
		case <-timer.C():
		case <-events:
		case err := <-failures:
			w.cfg.Log.Warn("events of the folder of plugins were lost, looking at it anew", "error", err)
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// look brings the followers in step with the folder. It watches folders before
// it reads them, so that nothing is made unseen between.
func (w *Watcher) look(ctx context.Context, notify *fsnotify.Watcher) {
	f, err := scan(w.cfg.Dir)
	if err == nil && notify != nil && w.watch(notify, f.folders) {
		f, err = scan(w.cfg.Dir)
	}
	if err != nil {
		w.cfg.Log.Warn("the folder of plugins cannot be read as a whole", "dir", w.cfg.Dir, "error", err)
		return
	}
	for path, follower := range w.followers {
		if _, there := f.sockets[path]; !there {
			follower.end(errGone)
			delete(w.followers, path)
		}
	}
	for path, id := range f.sockets {
		old := w.followers[path]
		if old != nil && old.id == id {
			continue
		}
		if old != nil {
			old.end(errReplaced)
		}
		w.follow(ctx, path, id, old)
	}
}

// watch reports whether a folder is watched now that was not before.
func (w *Watcher) watch(notify *fsnotify.Watcher, folders []string) (more bool) {
	before := len(notify.WatchList())
	for _, dir := range folders {
		if err := notify.Add(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			w.cfg.Log.Warn("a folder of plugins is not watched, only looked at every few seconds", "dir", dir, "error", err)
		}
	}
	return len(notify.WatchList()) > before
}

func (w *Watcher) follow(ctx context.Context, path string, id identity, old *follower) {
	ctx, cancel := context.WithCancelCause(ctx)
	f := &follower{cfg: &w.cfg, path: path, id: id, end: cancel, done: make(chan struct{})}
	w.followers[path] = f
	w.running.Go(func() {
		defer cancel(nil)
		defer close(f.done)
		if old != nil {
			<-old.done
			f.have = old.have
		}
		f.run(ctx)
	})
}
