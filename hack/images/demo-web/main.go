// Command demo-web is the front end of the demo: a page with the guest book
// that demo-store keeps.
//
//	GET  /          the page
//	POST /          adds an entry (form field "entry", or the bare body)
//	GET  /healthz   ok while this process serves
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const maxBody = 64 << 10

func main() {
	log := slog.New(slog.NewTextHandler(os.Stdout, nil))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, log); err != nil {
		log.Error("the web front end ended", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, log *slog.Logger) error {
	web, err := fromEnvironment(log)
	if err != nil {
		return err
	}
	server := &http.Server{Addr: ":8080", Handler: web.handler(), ReadTimeout: 10 * time.Second, WriteTimeout: 15 * time.Second}
	go func() {
		<-ctx.Done()
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
		defer cancel()
		_ = server.Shutdown(ctx) // what does not end in time is cut off
	}()
	log.Info("the web front end is open", "store", web.store)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// web serves the page.
type web struct {
	title, greetingFile, store, token, pod, node string
	client                                       *http.Client
	log                                          *slog.Logger
}

func fromEnvironment(log *slog.Logger) (*web, error) {
	w := &web{
		title:        os.Getenv("TITLE"),
		greetingFile: os.Getenv("GREETING_FILE"),
		store:        strings.TrimSuffix(os.Getenv("STORE_URL"), "/"),
		token:        os.Getenv("STORE_TOKEN"),
		pod:          os.Getenv("POD_NAME"),
		node:         os.Getenv("NODE_NAME"),
		client:       &http.Client{Timeout: 3 * time.Second},
		log:          log,
	}
	if w.title == "" || w.store == "" {
		return nil, errors.New("TITLE and STORE_URL must be set: they come from the ConfigMap demo")
	}
	if w.token == "" {
		return nil, errors.New("STORE_TOKEN is not set: it comes from the Secret demo")
	}
	return w, nil
}

func (w *web) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprintln(rw, "ok") })
	mux.HandleFunc("GET /{$}", w.page)
	mux.HandleFunc("POST /{$}", w.add)
	return mux
}

var page = template.Must(template.New("page").Parse(`<!doctype html>
<title>{{.Title}}</title>
<h1>{{.Title}}</h1>
<p>{{.Greeting}}</p>
<ol>
{{range .Entries}}<li>{{.}}</li>
{{end}}</ol>
<form method="post"><input name="entry" maxlength="280" autofocus> <button>Sign</button></form>
<p>Served by {{.Pod}} on {{.Node}}.</p>
`))

func (w *web) page(rw http.ResponseWriter, r *http.Request) {
	entries, err := w.entries(r.Context())
	if err != nil {
		w.unavailable(rw, err)
		return
	}
	greeting, err := os.ReadFile(w.greetingFile)
	if err != nil {
		w.log.Warn("the greeting cannot be read", "error", err)
	}
	rw.Header().Set("Content-Type", "text/html; charset=utf-8")
	err = page.Execute(rw, map[string]any{
		"Title": w.title, "Greeting": strings.TrimSpace(string(greeting)),
		"Entries": entries, "Pod": w.pod, "Node": w.node,
	})
	if err != nil {
		w.log.Warn("the page was not delivered", "error", err)
	}
}

func (w *web) add(rw http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(rw, r.Body, maxBody)
	entry := ""
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		entry = r.PostFormValue("entry")
	} else if body, err := io.ReadAll(r.Body); err == nil {
		entry = string(body)
	}
	resp, err := w.call(r.Context(), http.MethodPost, strings.NewReader(entry))
	if err != nil {
		w.unavailable(rw, err)
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		reason, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		http.Error(rw, strings.TrimSpace(string(reason)), resp.StatusCode)
		return
	}
	http.Redirect(rw, r, "/", http.StatusSeeOther)
}

func (w *web) entries(ctx context.Context) ([]string, error) {
	resp, err := w.call(ctx, http.MethodGet, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the store answered %s", resp.Status)
	}
	var entries []string
	err = json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&entries)
	return entries, err
}

func (w *web) call(ctx context.Context, method string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, w.store+"/entries", body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+w.token)
	return w.client.Do(req)
}

func (w *web) unavailable(rw http.ResponseWriter, err error) {
	w.log.Warn("the store cannot be reached", "error", err)
	http.Error(rw, "the store cannot be reached: "+err.Error(), http.StatusServiceUnavailable)
}
