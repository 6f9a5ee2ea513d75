package audit

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"coracle/pkg/auth"
)

// MaxBody bounds the bodies that an event carries, in bytes each.
const MaxBody = 1 << 20

const (
	maxAnnotations     = 64
	maxAnnotationBytes = 16 << 10 // of one request
)

// Request is what is known of a request as it comes.
type Request struct {
	ID         string
	URI        string
	Attributes auth.Attributes // who asks for what, before impersonation
	SourceIPs  []string
	UserAgent  string
	Received   time.Time
}

// Status is how a request was answered. Reason and Message are empty but for
// failures.
type Status struct {
	Code            int
	Reason, Message string
}

// Record is one request under way. A nil Record records nothing.
type Record struct {
	log *Log
	req Request
	decision

	mu           sync.Mutex // guards what follows
	impersonated *auth.User
	uid          string // of the object made; its name is in req
	annotations  []annotation
	annotated    int // bytes of annotations
	request      []byte
	response     []byte
}

type annotation struct{ key, value string }

// Begin decides on a request and records that it has come. The result is nil
// when the policy leaves it out. An error means that the request must not be
// served: a backend in ModeBlockingStrict has lost the event.
func (l *Log) Begin(req Request) (*Record, error) {
	if l == nil {
		return nil, nil
	}
	d := l.policy.decide(&req.Attributes)
	if d.level == LevelNone {
		return nil, nil
	}
	r := &Record{log: l, req: req, decision: d}
	return r, r.emit(StageRequestReceived, Status{}, req.Received)
}

// Impersonate notes as whom the request is served.
func (r *Record) Impersonate(u *auth.User) {
	if r == nil {
		return
	}
	r.mu.Lock()
	r.impersonated = u
	r.mu.Unlock()
}

// Created names the object that the request has made, which its path does not.
func (r *Record) Created(name, uid string) {
	if r == nil {
		return
	}
	r.mu.Lock()
	r.req.Attributes.Name, r.uid = name, uid
	r.mu.Unlock()
}

// bodyAnnotations begin the keys of annotations that have parts of objects in
// them, such as a Secret's: they are kept where the level keeps the bodies.
const bodyAnnotations = "patch.webhook.admission.k8s.io/"

// Annotate adds to the events to come; the first value of a key stays. It may
// be called from any goroutine.
func (r *Record) Annotate(key, value string) {
	if r == nil || strings.HasPrefix(key, bodyAnnotations) && !r.WantsRequest() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.annotations {
		if a.key == key {
			return
		}
	}
	if size := len(key) + len(value); len(r.annotations) < maxAnnotations && r.annotated+size <= maxAnnotationBytes {
		r.annotations = append(r.annotations, annotation{key, value})
		r.annotated += size
	}
}

// WantsRequest and WantsResponse say whether bodies are recorded.
func (r *Record) WantsRequest() bool {
	return r != nil && (r.level == LevelRequest || r.level == LevelRequestResponse)
}

// WantsResponse says whether the body of the answer is recorded.
func (r *Record) WantsResponse() bool { return r != nil && r.level == LevelRequestResponse }

// SetRequest and SetResponse give bodies, in JSON; what is not JSON is left out.
func (r *Record) SetRequest(body []byte) { r.set(&r.request, body) }

// SetResponse gives the body of the answer.
func (r *Record) SetResponse(body []byte) { r.set(&r.response, body) }

func (r *Record) set(to *[]byte, body []byte) {
	if len(body) == 0 || len(body) > MaxBody {
		return
	}
	line, err := oneLine(body, r.omitManagedFields)
	if err != nil {
		return
	}
	r.mu.Lock()
	*to = line
	r.mu.Unlock()
}

// oneLine is a JSON document without line breaks.
func oneLine(body []byte, omitManagedFields bool) ([]byte, error) {
	if !omitManagedFields {
		var out bytes.Buffer
		err := json.Compact(&out, body)
		return out.Bytes(), err
	}
	var doc any
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber() // numbers stay as they are
	if err := d.Decode(&doc); err != nil {
		return nil, err
	}
	dropManagedFields(doc)
	return json.Marshal(doc)
}

func dropManagedFields(doc any) {
	object, _ := doc.(map[string]any)
	if meta, ok := object["metadata"].(map[string]any); ok {
		delete(meta, "managedFields")
	}
	if items, ok := object["items"].([]any); ok {
		for _, item := range items {
			dropManagedFields(item)
		}
	}
}

// End records a later stage of the request.
func (r *Record) End(stage Stage, status Status, now time.Time) {
	if r != nil {
		_ = r.emit(stage, status, now) // the request has been served
	}
}

func (r *Record) emit(stage Stage, status Status, now time.Time) error {
	for i, s := range stages {
		if s == stage && r.omit[i] {
			return nil
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.write(func(b []byte) []byte { return r.append(b, stage, status, now) })
}

// append encodes an event as one line. r.mu is held.
func (r *Record) append(b []byte, stage Stage, status Status, now time.Time) []byte {
	a := &r.req.Attributes
	b = append(b, `{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"`...)
	b = append(append(b, r.level...), '"')
	b = member(b, "auditID", r.req.ID)
	b = member(b, "stage", string(stage))
	b = member(b, "requestURI", r.req.URI)
	b = member(b, "verb", a.Verb)
	b = appendUser(append(b, `,"user":`...), a.User)
	if r.impersonated != nil {
		b = appendUser(append(b, `,"impersonatedUser":`...), r.impersonated)
	}
	b = list(b, "sourceIPs", r.req.SourceIPs)
	b = optional(b, "userAgent", r.req.UserAgent)
	if a.ResourceRequest {
		b = append(b, `,"objectRef":{"resource":`...)
		b = quote(b, a.Resource)
		b = optional(b, "namespace", a.Namespace)
		b = optional(b, "name", a.Name)
		b = optional(b, "uid", r.uid)
		b = optional(b, "apiGroup", a.APIGroup)
		b = optional(b, "apiVersion", a.APIVersion)
		b = append(optional(b, "subresource", a.Subresource), '}')
	}
	if stage != StageRequestReceived {
		b = append(b, `,"responseStatus":{"metadata":{}`...)
		if status.Reason != "" || status.Message != "" {
			b = append(b, `,"status":"Failure"`...)
		}
		b = optional(b, "message", status.Message)
		b = optional(b, "reason", status.Reason)
		b = strconv.AppendInt(append(b, `,"code":`...), int64(status.Code), 10)
		b = append(b, '}')
	}
	if stage == StageResponseComplete || stage == StagePanic {
		b = raw(raw(b, "requestObject", r.request), "responseObject", r.response)
	}
	b = timestamp(b, "requestReceivedTimestamp", r.req.Received)
	b = timestamp(b, "stageTimestamp", now)
	for i, n := range r.annotations {
		if i == 0 {
			b = append(b, `,"annotations":{`...)
		} else {
			b = append(b, ',')
		}
		b = quote(append(quote(b, n.key), ':'), n.value)
	}
	if len(r.annotations) > 0 {
		b = append(b, '}')
	}
	return append(b, '}', '\n')
}

func appendUser(b []byte, u *auth.User) []byte {
	if u == nil {
		return append(b, "{}"...)
	}
	b = quote(append(b, `{"username":`...), u.Name)
	b = list(optional(b, "uid", u.UID), "groups", u.Groups)
	first := true
	for key, values := range u.Extra {
		if first {
			b = append(b, `,"extra":{`...)
		} else {
			b = append(b, ',')
		}
		first = false
		b = array(append(quote(b, key), ':'), values)
	}
	if !first {
		b = append(b, '}')
	}
	return append(b, '}')
}

func key(b []byte, name string) []byte {
	return append(append(append(b, ',', '"'), name...), '"', ':')
}

func member(b []byte, name, value string) []byte { return quote(key(b, name), value) }

func optional(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return member(b, name, value)
}

func raw(b []byte, name string, value []byte) []byte {
	if len(value) == 0 {
		return b
	}
	return append(key(b, name), value...)
}

func list(b []byte, name string, values []string) []byte {
	if len(values) == 0 {
		return b
	}
	return array(key(b, name), values)
}

func array(b []byte, values []string) []byte {
	b = append(b, '[')
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = quote(b, v)
	}
	return append(b, ']')
}

func timestamp(b []byte, name string, t time.Time) []byte {
	return append(t.UTC().AppendFormat(append(key(b, name), '"'), "2006-01-02T15:04:05.000000Z"), '"')
}

const hex = "0123456789abcdef"

// quote appends s as a JSON string, in ASCII where it would break a line.
func quote(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			switch {
			case c == '"' || c == '\\':
				b = append(b, '\\', c)
			case c < 0x20 || c == 0x7f:
				b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			default:
				b = append(b, c)
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			b = append(b, `\ufffd`...)
		case r == '\u2028' || r == '\u2029':
			b = append(b, `\u202`...)
			b = append(b, hex[r&15])
		default:
			b = append(b, s[i:i+n]...)
		}
		i += n
	}
	return append(b, '"')
}
