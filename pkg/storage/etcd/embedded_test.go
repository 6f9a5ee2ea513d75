package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"coracle/pkg/storage"
	"coracle/pkg/storage/etcd"
)

// TestRestart shows that what was acknowledged is there after a restart, with
// its revisions and its history, and that a time to live goes on.
func TestRestart(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dir := filepath.Join(t.TempDir(), "new", "data")
	first := open(t, dir)
	rev, err := first.Put(ctx, "/registry/pods/default/a", []byte("1"), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	now, err := first.Put(ctx, "/registry/pods/default/a", []byte("2"), rev, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Put(ctx, "/registry/events/short", nil, 0, 2*time.Second); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && path == dir && info.Mode().Perm() != 0o700 {
			t.Errorf("%s is open to others: %v", path, info.Mode())
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}

	second := open(t, dir)
	defer second.Close()
	kv, _, err := second.Get(ctx, "/registry/pods/default/a")
	if err != nil || string(kv.Value) != "2" || kv.ModRevision != now || kv.CreateRevision != rev {
		t.Errorf("after the restart: %+v, %v", kv, err)
	}
	page, err := second.Range(ctx, "/registry/pods/", storage.RangeOptions{Revision: rev})
	if err != nil || len(page.Items) != 1 || string(page.Items[0].Value) != "1" {
		t.Errorf("history after the restart: %+v, %v", page, err)
	}
	for {
		page, err := second.Range(ctx, "/registry/events/", storage.RangeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if page.Count == 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestUnknownOutcome gives writes too little time: what is said to have
// happened has, what is said not to have been sent has not.
func TestUnknownOutcome(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	const n = 300
	var mu sync.Mutex
	written, unsent := map[string]bool{}, map[string]bool{}
	unknown := 0
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range n / 4 {
				key := fmt.Sprintf("/registry/a/%d-%d", w, i)
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%75)*20*time.Microsecond)
				_, err := s.Put(ctx, key, nil, 0, 0)
				cancel()
				mu.Lock()
				_, isUnknown := errors.AsType[*storage.OutcomeUnknownError](err)
				switch {
				case err == nil:
					written[key] = true
				case isUnknown:
					unknown++
				case errors.Is(err, context.DeadlineExceeded):
					unsent[key] = true
				default:
					t.Errorf("Put: %v", err)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("%d written, %d unknown, %d not sent", len(written), unknown, len(unsent))
	if len(written) == 0 || unknown == 0 || len(unsent) == 0 {
		t.Errorf("want some of each: %d written, %d unknown, %d not sent", len(written), unknown, len(unsent))
	}
	page, err := s.Range(t.Context(), "/registry/a/", storage.RangeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range page.Items {
		if unsent[kv.Key] {
			t.Errorf("%s is there, the error said it was not sent", kv.Key)
		}
		delete(written, kv.Key)
	}
	if len(written) > 0 {
		t.Errorf("acknowledged and not there: %v", written)
	}
}

// TestNoSpace reaches the quota: writes are refused as such, reads and
// deletions go on.
func TestNoSpace(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := etcd.StartEmbedded(ctx, etcd.Config{DataDir: t.TempDir(), UnsafeNoFsync: true, QuotaBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	value := make([]byte, 256<<10)
	first, err := s.Put(ctx, "/registry/a/0", value, 0, 0)
	for i := 1; err == nil && i < 20; i++ {
		_, err = s.Put(ctx, fmt.Sprintf("/registry/a/%d", i), value, 0, 0)
	}
	// That was too much, which the store sees when it puts it into its file.
	for last := storage.Revision(0); err == nil; {
		last, err = s.Put(ctx, "/registry/a/small", nil, last, 0)
	}
	if !errors.Is(err, storage.ErrNoSpace) {
		t.Fatalf("the store is full: %v", err)
	}
	if _, _, err := s.Get(ctx, "/registry/a/0"); err != nil {
		t.Errorf("Get: %v", err)
	}
	rev, err := s.Delete(ctx, "/registry/a/0", first)
	if err != nil {
		t.Errorf("Delete: %v", err)
	}
	full, err := s.Status(ctx)
	if err != nil || !full.NoSpace || !full.Leader || full.QuotaBytes != 4<<20 || full.SizeBytes == 0 {
		t.Errorf("Status = %+v, %v", full, err)
	}

	// Room is made by deleting, compacting and defragmenting.
	page, err := s.Range(ctx, "/registry/a/", storage.RangeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range page.Items {
		if rev, err = s.Delete(ctx, kv.Key, kv.ModRevision); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Compact(ctx, rev); err != nil {
		t.Fatal(err)
	}
	for now := full; now.SizeBytes > full.SizeBytes/2; { // compaction takes its time
		if err := s.Defragment(ctx); err != nil {
			t.Fatal(err)
		}
		if now, err = s.Status(ctx); err != nil || now.NoSpace {
			t.Fatalf("Status = %+v, %v, was %+v", now, err, full)
		}
	}
	if _, err := s.Put(ctx, "/registry/a/again", value, 0, 0); err != nil {
		t.Errorf("Put after room was made: %v", err)
	}
}

// TestMembers runs three members that trust each other's authority: what one
// writes the others read, and two of them go on without the third.
func TestMembers(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cert, key, _ := identity(t)
	members := map[string]string{}
	for _, name := range []string{"a", "b", "c"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		members[name] = "https://" + l.Addr().String()
		_ = l.Close()
	}
	stores := map[string]*etcd.Store{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for name := range members {
		dir := t.TempDir()
		wg.Go(func() {
			s, err := etcd.StartEmbedded(ctx, etcd.Config{
				DataDir: dir, Name: name, Members: members,
				PeerTLS: etcd.TLSFiles{Cert: cert, Key: key, CA: cert}, UnsafeNoFsync: true,
			})
			if err != nil {
				t.Errorf("member %s: %v", name, err)
				return
			}
			mu.Lock()
			stores[name] = s
			mu.Unlock()
		})
	}
	wg.Wait()
	for _, s := range stores {
		defer s.Close()
	}
	if t.Failed() {
		return
	}
	if _, err := stores["a"].Put(ctx, "/registry/a/1", nil, 0, 0); err != nil {
		t.Fatal(err)
	}
	for name, s := range stores {
		if _, _, err := s.Get(ctx, "/registry/a/1"); err != nil {
			t.Errorf("member %s: %v", name, err)
		}
	}
	if err := stores["c"].Close(); err != nil {
		t.Fatal(err)
	}
	for {
		_, err := stores["b"].Put(ctx, "/registry/a/2", nil, 0, 0)
		if err == nil || errors.Is(err, storage.ErrExists) {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("two of three members do not go on: %v", err)
		}
	}
	if _, _, err := stores["a"].Get(ctx, "/registry/a/2"); err != nil {
		t.Errorf("Get: %v", err)
	}
}

func TestBadConfig(t *testing.T) {
	blocked := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]etcd.Config{
		"no folder":       {},
		"a file":          {DataDir: blocked},
		"members in http": {DataDir: t.TempDir(), Members: map[string]string{"coracle": "http://127.0.0.1:1"}, PeerTLS: etcd.TLSFiles{Cert: "a", Key: "b", CA: "c"}},
		"no identity":     {DataDir: t.TempDir(), Members: map[string]string{"coracle": "https://127.0.0.1:1"}},
		"not a member":    {DataDir: t.TempDir(), Name: "x", Members: map[string]string{"y": "https://127.0.0.1:1"}, PeerTLS: etcd.TLSFiles{Cert: "a", Key: "b", CA: "c"}},
	} {
		if s, err := etcd.StartEmbedded(t.Context(), cfg); err == nil {
			t.Errorf("%s: accepted", name)
			_ = s.Close()
		}
	}
}
