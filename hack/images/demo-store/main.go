// Command demo-store is the back end of the demo: a guest book in a file. It
// answers only those who know the token.
//
//	GET  /entries   all entries as a JSON list
//	POST /entries   adds the body, one line of text, and answers with its number
//	GET  /healthz   ok once the file can be written
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"
)

const (
	maxEntry   = 280
	maxEntries = 1000
)

func main() {
	log := slog.New(slog.NewTextHandler(os.Stdout, nil))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, log); err != nil {
		log.Error("the store ended", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, log *slog.Logger) error {
	token := os.Getenv("STORE_TOKEN")
	if token == "" {
		return errors.New("STORE_TOKEN is not set: it comes from the Secret demo")
	}
	dir := os.Getenv("STORE_DIR")
	if dir == "" {
		dir = "/data"
	}
	book, err := openBook(filepath.Join(dir, "guestbook.txt"))
	if err != nil {
		return err
	}
	defer book.file.Close()
	server := &http.Server{Addr: ":8080", Handler: handler(book, token), ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
		defer cancel()
		_ = server.Shutdown(ctx) // what does not end in time is cut off
	}()
	log.Info("the store is open", "dir", dir, "entries", len(book.all()))
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func handler(b *book, token string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /entries", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(b.all()) // the reader may have gone
	})
	mux.HandleFunc("POST /entries", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, maxEntry+1))
		if err != nil {
			http.Error(w, "the entry could not be read", http.StatusBadRequest)
			return
		}
		n, err := b.add(string(body))
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintln(w, n)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given := r.Header.Get("Authorization")
		known := subtle.ConstantTimeCompare([]byte(given), []byte("Bearer "+token)) == 1
		if !known && r.URL.Path != "/healthz" {
			http.Error(w, "the token is missing or wrong", http.StatusUnauthorized)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// book is the guest book: a line for each entry, all of them in memory too.
type book struct {
	mu      sync.Mutex
	file    *os.File
	entries []string
}

func openBook(path string) (*book, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the guest book: %w", err)
	}
	b := &book{file: f}
	data, err := io.ReadAll(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("read the guest book: %w", err)
	}
	// A line without an end is an entry that was never acknowledged.
	whole := bytes.LastIndexByte(data, '\n') + 1
	if err := f.Truncate(int64(whole)); err != nil {
		f.Close()
		return nil, fmt.Errorf("repair the guest book: %w", err)
	}
	lines := bufio.NewScanner(bytes.NewReader(data[:whole]))
	for lines.Scan() {
		b.entries = append(b.entries, lines.Text())
	}
	return b, lines.Err()
}

func (b *book) all() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string{}, b.entries...)
}

// add keeps an entry and returns its number. The entry is on the disk before
// it is acknowledged.
func (b *book) add(text string) (int, error) {
	text = strings.Join(strings.Fields(text), " ")
	if text == "" || len(text) > maxEntry || !utf8.ValidString(text) {
		return 0, fmt.Errorf("an entry is 1 to %d bytes of text", maxEntry)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.entries) >= maxEntries {
		return 0, errors.New("the guest book is full")
	}
	if _, err := b.file.WriteString(text + "\n"); err != nil {
		return 0, fmt.Errorf("write the guest book: %w", err)
	}
	if err := b.file.Sync(); err != nil {
		return 0, fmt.Errorf("write the guest book: %w", err)
	}
	b.entries = append(b.entries, text)
	return len(b.entries), nil
}
