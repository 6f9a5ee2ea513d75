package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/singleflight"
	"k8s.io/utils/clock"
)

const (
	// forwardTimeout bounds one forwarded query, over all upstreams.
	forwardTimeout = 5 * time.Second
	// tryTimeout bounds one upstream's turn.
	tryTimeout = 2 * time.Second
	// maxForwards bounds the queries under way; more are answered SERVFAIL.
	maxForwards = 512
	// cacheEntries bounds the cache.
	cacheEntries = 10_000
	// maxCache and negativeCache bound how long an answer is kept, in
	// seconds: with and without records.
	maxCache      = 3600
	negativeCache = 30
)

// forwarder asks upstream servers for names outside the cluster.
type forwarder struct {
	upstreams []netip.AddrPort
	clock     clock.PassiveClock
	slots     chan struct{}
	flights   singleflight.Group

	mu sync.Mutex
	// cache holds answers by question; guarded by mu.
	cache map[question]cached
}

// question is what an upstream is asked.
type question struct {
	name string // wire form, lower case
	kind Type
}

// cached is an upstream's answer. The message is shared and not changed.
type cached struct {
	msg     *dns.Msg
	stored  time.Time
	expires time.Time
}

func newForwarder(upstreams []netip.AddrPort, c clock.PassiveClock) *forwarder {
	return &forwarder{upstreams: upstreams, clock: c, slots: make(chan struct{}, maxForwards), cache: map[question]cached{}}
}

// start resolves in the background what a responder left open, and hands the
// whole answer to reply. Beyond the bound it answers at once, with SERVFAIL.
func (f *forwarder) start(ctx context.Context, wg *sync.WaitGroup, r *Responder, partial []byte, reply func([]byte)) {
	target, kind := r.Target()
	name, limit, part := string(target), r.limit, append([]byte(nil), partial...)
	select {
	case f.slots <- struct{}{}:
	default:
		reply(refuse(part))
		return
	}
	wg.Go(func() {
		defer func() { <-f.slots }()
		reply(f.resolve(ctx, part, name, kind, limit))
	})
}

// resolve completes a partial answer, which holds the question and the aliases
// that lead to name, to at most limit bytes.
func (f *forwarder) resolve(ctx context.Context, partial []byte, name string, kind Type, limit int) []byte {
	var out dns.Msg
	if err := out.Unpack(partial); err != nil {
		return refuse(partial)
	}
	answer, age, err := f.lookup(ctx, question{name, kind})
	if err != nil {
		return refuse(partial)
	}
	out.Rcode, out.RecursionAvailable, out.Authoritative = answer.Rcode, true, false
	out.Answer = append(out.Answer, aged(answer.Answer, age)...)
	out.Ns = aged(answer.Ns, age)
	out.Compress = true
	out.Truncate(limit)
	packed, err := out.Pack()
	if err != nil {
		return refuse(partial)
	}
	return packed
}

// lookup returns an answer from the cache or from upstream, and its age in
// seconds.
func (f *forwarder) lookup(ctx context.Context, q question) (*dns.Msg, uint32, error) {
	f.mu.Lock()
	c, ok := f.cache[q]
	f.mu.Unlock()
	if now := f.clock.Now(); ok && now.Before(c.expires) {
		return c.msg, uint32(now.Sub(c.stored) / time.Second), nil
	}
	// Equal questions share one query. It must not end with the first client,
	// so it has its own deadline.
	ch := f.flights.DoChan(fmt.Sprintf("%d %s", q.kind, q.name), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), forwardTimeout)
		defer cancel()
		m, err := f.ask(ctx, q)
		if err == nil {
			f.store(q, m)
		}
		return m, err
	})
	select {
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	case res := <-ch:
		if res.Err != nil {
			return nil, 0, res.Err
		}
		return res.Val.(*dns.Msg), 0, nil
	}
}

// ask tries the upstreams in turn.
func (f *forwarder) ask(ctx context.Context, q question) (*dns.Msg, error) {
	name, _, err := dns.UnpackDomainName([]byte(q.name), 0)
	if err != nil {
		return nil, fmt.Errorf("forward a DNS query: %w", err)
	}
	m := new(dns.Msg)
	m.SetQuestion(name, uint16(q.kind))
	m.SetEdns0(ednsSize, false)
	var failed error
	for _, u := range f.upstreams {
		for _, network := range []string{"udp", "tcp"} {
			m.Id = dns.Id()
			c := dns.Client{Net: network, Timeout: tryTimeout, UDPSize: ednsSize}
			in, _, err := c.ExchangeContext(ctx, m, u.String())
			if err == nil && (len(in.Question) != 1 || in.Question[0] != m.Question[0]) {
				err = errors.New("the answer is to another question")
			}
			if err == nil && in.Truncated && network == "udp" {
				continue
			}
			if err == nil && in.Rcode != dns.RcodeSuccess && in.Rcode != dns.RcodeNameError {
				err = fmt.Errorf("answers %s", dns.RcodeToString[in.Rcode])
			}
			if err == nil {
				return in, nil
			}
			failed = errors.Join(failed, fmt.Errorf("DNS server %s: %w", u, err))
			break
		}
	}
	return nil, failed
}

// store keeps an answer as long as its records say, within bounds.
func (f *forwarder) store(q question, m *dns.Msg) {
	keep := uint32(maxCache)
	if len(m.Answer) == 0 {
		keep = negativeCache
	}
	for _, rr := range append(append([]dns.RR(nil), m.Answer...), m.Ns...) {
		keep = min(keep, rr.Header().Ttl)
	}
	if keep == 0 {
		return
	}
	now := f.clock.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.cache) >= cacheEntries {
		// Map order is random enough: drop a tenth, which spares each query
		// the search for the oldest.
		n := cacheEntries / 10
		for k := range f.cache {
			delete(f.cache, k)
			if n--; n == 0 {
				break
			}
		}
	}
	f.cache[q] = cached{msg: m, stored: now, expires: now.Add(time.Duration(keep) * time.Second)}
}

// aged copies records with the time they were kept taken off.
func aged(in []dns.RR, age uint32) []dns.RR {
	out := make([]dns.RR, 0, len(in))
	for _, rr := range in {
		if rr.Header().Rrtype == dns.TypeOPT {
			continue
		}
		rr = dns.Copy(rr)
		rr.Header().Ttl -= min(age, rr.Header().Ttl)
		out = append(out, rr)
	}
	return out
}

// refuse turns an answer begun into SERVFAIL: try again later.
func refuse(partial []byte) []byte {
	out := append([]byte(nil), partial...)
	out[3] = out[3]&0xf0 | rcodeServer
	return out
}
