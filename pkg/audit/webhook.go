package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// WebhookConfig describes where events are sent. Zero values are
// kube-apiserver's defaults.
type WebhookConfig struct {
	// Kubeconfig is a file whose current context says where the webhook is and
	// how the server shows who it is. Required.
	Kubeconfig string
	// Buffer is how many events wait at the most (10000), Batch how many are sent
	// together (400), Wait how long an event waits for others (30 s).
	Buffer, Batch int
	Wait          time.Duration
	// Backoff is the time before the first of the tries that follow a failed one
	// (10 s).
	Backoff time.Duration
	// Mode says whether requests wait; empty is ModeBatch.
	Mode Mode
	Log  *slog.Logger
}

const (
	// maxPending bounds the events that wait for the webhook, in bytes.
	maxPending = 32 << 20
	// sendTries and backoffFactor: how often a batch is sent, and how much longer
	// each wait is than the one before.
	sendTries     = 5
	backoffFactor = 1.5
	// sendTimeout bounds one try, lastSend all that is done as the server ends.
	sendTimeout = 30 * time.Second
	lastSend    = 5 * time.Second
)

// Webhook sends events to another server, some together. No request waits for
// that: what the webhook does not take is dropped within a bound.
type Webhook struct {
	cfg     WebhookConfig
	url     string
	client  *http.Client
	wake    chan struct{} // of one place: there is a batch
	dropped atomic.Int64

	mu    sync.Mutex
	lines [][]byte // guarded by mu; events that wait
	bytes int      // guarded by mu; of lines
}

// NewWebhook reads the configuration. Nothing is sent until Log.Run.
func NewWebhook(cfg WebhookConfig) (*Webhook, error) {
	if cfg.Buffer == 0 {
		cfg.Buffer = 10000
	}
	if cfg.Batch == 0 {
		cfg.Batch = 400
	}
	if cfg.Wait == 0 {
		cfg.Wait = 30 * time.Second
	}
	if cfg.Backoff == 0 {
		cfg.Backoff = 10 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Buffer < 0 || cfg.Batch < 0 || cfg.Batch > cfg.Buffer || cfg.Wait < 0 || cfg.Backoff < 0 {
		return nil, errors.New("the sizes and times of the audit webhook must not be negative, and a batch not larger than the buffer")
	}
	config, err := clientcmd.BuildConfigFromFlags("", cfg.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig of the audit webhook: %w", err)
	}
	config.Timeout = sendTimeout
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("set up the client of the audit webhook: %w", err)
	}
	// Events are for the server that was named, not for another that it names.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Webhook{cfg: cfg, url: config.Host + config.APIPath, client: client, wake: make(chan struct{}, 1)}, nil
}

// put takes the line of one event, which stays the caller's.
func (w *Webhook) put(line []byte) {
	w.mu.Lock()
	if len(w.lines) >= w.cfg.Buffer || w.bytes+len(line) > maxPending {
		w.mu.Unlock()
		w.dropped.Add(1)
		return
	}
	w.lines = append(w.lines, bytes.Clone(bytes.TrimSuffix(line, []byte("\n"))))
	w.bytes += len(line)
	full := len(w.lines) >= w.cfg.Batch
	w.mu.Unlock()
	if full {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// take removes the oldest events, up to a batch.
func (w *Webhook) take() [][]byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := min(len(w.lines), w.cfg.Batch)
	out := w.lines[:n:n]
	if w.lines = w.lines[n:]; len(w.lines) == 0 {
		w.lines = nil
	}
	for _, line := range out {
		w.bytes -= len(line) + 1
	}
	return out
}

// run sends until ctx ends, and what is left then for a moment.
func (w *Webhook) run(ctx context.Context) {
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(lastSend, cancel)
		context.AfterFunc(sending, func() { timer.Stop() })
	})
	defer stop()
	ticker := time.NewTicker(w.cfg.Wait)
	defer ticker.Stop()
	for ended := false; !ended; {
		select {
		case <-ticker.C:
		case <-w.wake:
		case <-ctx.Done():
			ended = true
		}
		for batch := w.take(); len(batch) > 0; batch = w.take() {
			_ = w.send(sending, ctx.Done(), batch) // it counts and logs what is lost
		}
	}
	w.client.CloseIdleConnections()
}

// send gives a batch to the webhook, trying again for a while; hurry ends the
// waits between tries. The error is that of the last one.
func (w *Webhook) send(ctx context.Context, hurry <-chan struct{}, batch [][]byte) error {
	body := append([]byte(`{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":[`), bytes.Join(batch, []byte{','})...)
	body = append(body, "]}\n"...)
	wait := w.cfg.Backoff
	var err error
	for try := range sendTries {
		var again bool
		if again, err = w.post(ctx, body); err == nil {
			return nil
		}
		if !again || try == sendTries-1 || ctx.Err() != nil {
			break
		}
		waitFor(ctx, hurry, wait)
		wait = time.Duration(float64(wait) * backoffFactor)
	}
	w.dropped.Add(int64(len(batch)))
	w.cfg.Log.Error("The audit webhook has not taken events", "lost", len(batch), "error", err)
	return err
}

// post sends a batch once, and says whether it is worth another try.
func (w *Webhook) post(ctx context.Context, body []byte) (again bool, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, bytes.NewReader(body))
	if err != nil {
		return false, fmt.Errorf("call the audit webhook: %w", err)
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := w.client.Do(r)
	if err != nil {
		return true, fmt.Errorf("call the audit webhook: %w", err)
	}
	// The connection is used again if the answer is small.
	_, copied := io.CopyN(io.Discard, resp.Body, 64<<10)
	closed := resp.Body.Close()
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return false, nil
	}
	if copied != nil && !errors.Is(copied, io.EOF) {
		closed = errors.Join(closed, copied)
	}
	again = resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests
	return again, errors.Join(fmt.Errorf("the audit webhook answers %s", resp.Status), closed)
}
