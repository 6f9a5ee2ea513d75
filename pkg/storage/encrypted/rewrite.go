package encrypted

import (
	"context"
	"errors"
	"strings"

	"coracle/pkg/storage"
)

// rewritePage is how many values one request of Rewrite reads.
const rewritePage = 500

// transient are keys that live for a while, which a rewrite would forget: what
// is stored anew has no time to live. They end by themselves.
var transient = []string{storage.Root + "events/", storage.Root + "masterleases/"}

// Rewritten tells what a Rewrite found.
type Rewritten struct {
	Changed int
	// Unreadable values could not be opened and were left as they are; First is
	// the key of one of them.
	Unreadable int
	First      string
}

// Rewrite stores every value that is not as it would be written now once more:
// plain ones, and those of keys that do not write any longer. When it returns
// nil, all are as the rules say that were there at its beginning, but for the
// unreadable ones and events, which end by themselves. It may be ended at any
// time and begun again.
func (b *Backend) Rewrite(ctx context.Context) (Rewritten, error) {
	var done Rewritten
	rules := b.rules.Load()
	for _, r := range rules.rules {
		for _, prefix := range r.Prefixes {
			if err := b.rewrite(ctx, rules, r, prefix, &done); err != nil {
				return done, err
			}
		}
	}
	return done, nil
}

func (b *Backend) rewrite(ctx context.Context, rules *Rules, r *rule, prefix string, done *Rewritten) error {
	opts := storage.RangeOptions{Limit: rewritePage}
	for {
		page, err := b.Backend.Range(ctx, prefix, opts)
		if err != nil {
			return err
		}
		for i := range page.Items {
			kv := &page.Items[i]
			if rules.of(kv.Key) != r || r.current(kv.Value) || isTransient(kv.Key) {
				continue
			}
			if err := b.rewriteKey(ctx, rules, kv, done); err != nil {
				return err
			}
		}
		if !page.More {
			return nil
		}
		opts.StartAfter = page.Items[len(page.Items)-1].Key
	}
}

// rewriteKey writes the value that was read. When somebody else has written
// meanwhile, that was done by a rule which is not older; a server that still
// writes by other rules is found at the next start.
func (b *Backend) rewriteKey(ctx context.Context, rules *Rules, kv *storage.KV, done *Rewritten) error {
	plain, reason := rules.tryOpen(kv.Key, kv.Value)
	if reason != "" {
		if done.Unreadable++; done.First == "" {
			done.First = kv.Key
		}
		return nil
	}
	sealed, err := rules.seal(kv.Key, plain, b.rand)
	if err != nil {
		return err
	}
	_, err = b.Backend.Put(ctx, kv.Key, sealed, kv.ModRevision, 0)
	if _, lost := errors.AsType[*storage.ConflictError](err); lost {
		return nil
	}
	if err == nil {
		done.Changed++
	}
	return err
}

func isTransient(key string) bool {
	for _, p := range transient {
		if strings.HasPrefix(key, p) {
			return true
		}
	}
	return false
}
