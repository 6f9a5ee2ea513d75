package server

import (
	"net/url"
	"testing"
	"time"
)

// FuzzQueries: whatever a client asks for is refused or within its bounds.
func FuzzQueries(f *testing.F) {
	f.Add("tailLines=5&limitBytes=1&sinceSeconds=9&follow=true&stream=All")
	f.Add("port=80&ports=1,2&stdin=true&tty=1&sinceTime=2026-01-02T03:04:05Z")
	now := time.Unix(1e9, 0)
	f.Fuzz(func(t *testing.T, raw string) {
		v, err := url.ParseQuery(raw)
		if err != nil {
			return
		}
		if q, err := parseLogQuery(v, now); err == nil {
			if n := q.options.Tail; n != nil && *n < 0 {
				t.Errorf("tail of %d lines", *n)
			}
			if n := q.options.LimitBytes; n != nil && *n < 1 {
				t.Errorf("limit of %d bytes", *n)
			}
			if v.Has("sinceSeconds") && q.options.Since.After(now) {
				t.Errorf("since %v, which is to come", q.options.Since)
			}
		}
		if ports, err := parsePorts(v); err == nil {
			if len(ports) > maxPorts {
				t.Errorf("%d ports", len(ports))
			}
			for _, p := range ports {
				if p < 1 || p > 65535 {
					t.Errorf("port %d", p)
				}
			}
		}
		if s, err := parseStreams(v); err == nil && s.tty && s.stderr {
			t.Error("a terminal with a second output")
		}
	})
}
