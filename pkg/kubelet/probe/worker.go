package probe

import (
	"context"
	"fmt"
	"strings"
	"time"
)

func (m *Manager) startLocked(w *worker) {
	ctx, stop := context.WithCancel(m.ctx)
	w.stop = stop
	m.workers.Go(func() {
		defer stop()
		m.work(ctx, w)
	})
}

// work sleeps until an attempt is due, makes it, and starts over.
func (m *Manager) work(ctx context.Context, w *worker) {
	for ctx.Err() == nil {
		m.mu.Lock()
		at, ok := w.state.due(w.pod.view(w.key.container))
		m.mu.Unlock()
		if !ok {
			select {
			case <-ctx.Done():
			case <-w.wake:
			}
			continue
		}
		if wait := at.Sub(m.cfg.Clock.Now()); wait > 0 {
			timer := m.cfg.Clock.NewTimer(wait)
			select {
			case <-ctx.Done():
			case <-w.wake:
			case <-timer.C():
			}
			timer.Stop()
			continue
		}
		m.attempt(ctx, w)
	}
}

// retries is how often an attempt that told nothing is made again at once.
const retries = 3

// attempt makes one attempt and takes its outcome.
func (m *Manager) attempt(ctx context.Context, w *worker) {
	began := m.cfg.Clock.Now()
	m.mu.Lock()
	object := w.pod.object
	t := target{
		container: w.spec, id: w.state.id, podIP: w.pod.ip,
		probe: spec(w.spec, w.key.kind), timeout: w.state.timing.timeout,
	}
	m.mu.Unlock()
	out, err := m.try(ctx, t)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		m.cfg.Log.Warn("a probe could not be made", "pod", object.Name, "namespace", object.Namespace,
			"container", w.key.container, "probe", string(w.key.kind), "err", err)
	}
	m.mu.Lock()
	now := m.cfg.Clock.Now()
	changed := w.state.attempted(t.id, began, now, out.success, err == nil)
	if changed && w.key.kind == Startup {
		w.pod.wakeAll()
	}
	m.mu.Unlock()
	if err == nil && !out.success {
		m.cfg.OnFailure(object, w.key.container, w.key.kind, failureText(w.key.kind, out.message))
	}
	if changed {
		m.cfg.OnChange(object.UID, w.key.container)
	}
}

func (m *Manager) try(ctx context.Context, t target) (outcome, error) {
	for i := 1; ; i++ {
		out, err := m.tryOnce(ctx, t)
		if err == nil || i == retries || ctx.Err() != nil {
			return out, err
		}
	}
}

func (m *Manager) tryOnce(ctx context.Context, t target) (outcome, error) {
	for _, a := range m.attempts {
		if a.is(&t.probe.ProbeHandler) {
			ctx, cancel := context.WithTimeout(ctx, t.timeout+slack)
			defer cancel()
			return a.do(ctx, t)
		}
	}
	return outcome{}, fmt.Errorf("the probe of container %q is of a kind that this node does not know", t.container.Name)
}

// slack is added to a probe's timeout as the bound of last resort; each kind of
// attempt keeps the timeout itself.
const slack = 2 * time.Second

// maxMessage bounds the output of a container that is shown to the user.
const maxMessage = 1024

func failureText(kind Kind, message string) string {
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "") + "..."
	}
	name := string(kind)
	return strings.ToUpper(name[:1]) + name[1:] + " probe failed: " + message
}
