package memory_test

import (
	"testing"
	"testing/synctest"
	"time"

	"coracle/pkg/storage"
	"coracle/pkg/storage/memory"
	"coracle/pkg/storage/storagetest"
)

func TestBackend(t *testing.T) {
	storagetest.Run(t, storagetest.Options{
		Open: func(t *testing.T) storage.Backend {
			s := memory.New(memory.Config{})
			t.Cleanup(func() { _ = s.Close() })
			return s
		},
		ShortTTL: 50 * time.Millisecond,
		MaxTTL:   time.Second,
	})
}

// TestExpiryInBubble shows that a long time to live costs no real time and that
// a key whose life was prolonged stays.
func TestExpiryInBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New(memory.Config{})
		defer s.Close()
		ctx := t.Context()
		rev, err := s.Put(ctx, "/registry/events/a", nil, 0, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(59 * time.Minute)
		if _, err := s.Put(ctx, "/registry/events/a", nil, rev, time.Hour); err != nil {
			t.Fatal(err)
		}
		for _, step := range []struct {
			after time.Duration
			want  int64
		}{{59 * time.Minute, 1}, {time.Minute + time.Second, 0}} {
			time.Sleep(step.after)
			synctest.Wait()
			page, err := s.Range(ctx, "/registry/events/", storage.RangeOptions{})
			if err != nil || page.Count != step.want {
				t.Fatalf("%d keys, error %v, want %d", page.Count, err, step.want)
			}
		}
	})
}
