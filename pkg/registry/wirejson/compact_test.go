package wirejson

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

var sets = []struct {
	text  string
	usual bool
}{
	{`{}`, true},
	{`{"f:metadata":{"f:labels":{".":{},"f:app":{}}},"f:spec":{}}`, true},
	{`{"k:{\"name\":\"a\"}":{".":{},"f:x":{"f:y":{}}}}`, true},
	{`{"v:\"a b\"":{}}`, true},
	{`{"k:{\"n\":\"\\\\\"}":{}}`, true},
	{``, false}, {`{`, false}, {`}`, false}, {`{}}`, false}, {`{}{}`, false}, {`{"a"}`, false}, {`{"a":}`, false},
	{`{"a":{}`, false}, {`{"a":{},}`, false}, {`{,"a":{}}`, false}, {`{"a":{} }`, false}, {`{"a":1}`, false},
	{`{"a<b":{}}`, false}, {`{"ä":{}}`, false}, {`{"a\u0041":{}}`, false}, {`{"a\`, false}, {`{"a":{}}x`, false}, {`{"a:{}}`, false},
	{strings.Repeat(`{"a":`, 2000) + `{}` + strings.Repeat(`}`, 2000), false},
}

func TestCompact(t *testing.T) {
	for _, s := range sets {
		if got := compact([]byte(s.text)); got != s.usual {
			t.Errorf("%.80s: %v", s.text, got)
		}
	}
}

// FuzzCompact: what is called compact is what encoding/json makes of it.
func FuzzCompact(f *testing.F) {
	for _, s := range sets {
		f.Add([]byte(s.text))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if !compact(raw) {
			return
		}
		doc, err := json.Marshal(json.RawMessage(raw))
		if err != nil || !bytes.Equal(doc, raw) {
			t.Fatalf("%q becomes %q (%v)", raw, doc, err)
		}
	})
}
