package plugins_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"coracle/pkg/kubelet/csifake"
	"coracle/pkg/kubelet/plugins"
)

// recorder is a Handler that notes what it is told.
type recorder struct {
	mu     sync.Mutex
	events []string // guarded by mu
	fail   error    // guarded by mu
}

func (r *recorder) Register(_ context.Context, p plugins.Plugin) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, "+"+p.Name)
	return r.fail
}

func (r *recorder) Deregister(p plugins.Plugin) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, "-"+p.Name)
}

func (r *recorder) setFail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = err
}

func (r *recorder) seen() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// eventually polls until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("waiting in vain for %s", what)
}

func watch(t *testing.T, dir string, handlers map[string]plugins.Handler) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	w := plugins.New(plugins.Config{Dir: dir, Handlers: handlers})
	running.Go(func() {
		if err := w.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	stop = func() { cancel(); running.Wait() }
	t.Cleanup(stop)
	return stop
}

func newDriver(t *testing.T, name, registry string) *csifake.Driver {
	t.Helper()
	d := csifake.New(csifake.Config{Name: name, Dir: t.TempDir(), Registry: registry})
	t.Cleanup(d.Stop)
	return d
}

func start(t *testing.T, d *csifake.Driver) {
	t.Helper()
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
}

// TestPluginsComeAndGo follows sockets that are there before the watcher, in
// folders made later, made anew, and gone.
func TestPluginsComeAndGo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "r")
	early, late := newDriver(t, "early", dir), newDriver(t, "late", filepath.Join(dir, "deep", "er"))
	start(t, early)
	r := &recorder{}
	handlers := map[string]plugins.Handler{"CSIPlugin": r}
	stop := watch(t, dir, handlers)
	eventually(t, "the plugin that was there", func() bool { return slices.Contains(r.seen(), "+early") })
	start(t, late)
	eventually(t, "the plugin of a new folder", func() bool { return slices.Contains(r.seen(), "+late") })
	eventually(t, "its notification", func() bool {
		s := late.Statuses()
		return len(s) == 1 && s[0].GetPluginRegistered()
	})

	// The same socket made anew: registered again, never deregistered.
	early.Withdraw()
	if err := early.Announce(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second registration", func() bool { return len(early.Statuses()) == 2 })

	late.Stop()
	eventually(t, "the end of a plugin", func() bool { return slices.Contains(r.seen(), "-late") })

	// The end of the agent deregisters nothing, and the next one asks again.
	stop()
	before := len(r.seen())
	if n := len(early.Statuses()); n != 2 {
		t.Errorf("%d notifications", n)
	}
	watch(t, dir, handlers)
	eventually(t, "registration with the next agent", func() bool { return len(early.Statuses()) == 3 })
	if after := r.seen()[before:]; !slices.Equal(after, []string{"+early"}) {
		t.Errorf("after the restart: %v", after)
	}
}

// TestRefusedPluginsAreTold: a plugin learns why, and is asked again.
func TestRefusedPluginsAreTold(t *testing.T) {
	dir := t.TempDir()
	r := &recorder{fail: errors.New("not today")}
	watch(t, dir, map[string]plugins.Handler{"CSIPlugin": r})
	d := newDriver(t, "d", dir)
	start(t, d)
	other := csifake.New(csifake.Config{Name: "gpu", Dir: t.TempDir(), Registry: dir, Type: "DevicePlugin"})
	t.Cleanup(other.Stop)
	start(t, other)
	eventually(t, "the reason", func() bool {
		s := d.Statuses()
		return len(s) > 0 && !s[0].GetPluginRegistered() && strings.Contains(s[0].GetError(), "not today")
	})
	eventually(t, "the reason of the other", func() bool {
		s := other.Statuses()
		return len(s) > 0 && strings.Contains(s[0].GetError(), `no use for plugins of type "DevicePlugin"`)
	})
	r.setFail(nil)
	eventually(t, "success", func() bool {
		s := d.Statuses()
		return len(s) > 1 && s[len(s)-1].GetPluginRegistered()
	})
}

// TestSilentSocketDelaysNobody: one plugin accepts and says nothing.
func TestSilentSocketDelaysNobody(t *testing.T) {
	dir := t.TempDir()
	silent, err := net.Listen("unix", filepath.Join(dir, "silent.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := &recorder{}
	watch(t, dir, map[string]plugins.Handler{"CSIPlugin": r})
	d := newDriver(t, "d", dir)
	start(t, d)
	eventually(t, "the plugin that answers", func() bool { return slices.Contains(r.seen(), "+d") })
}
