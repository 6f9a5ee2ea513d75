package apiserver

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"coracle/pkg/registry"
)

// readOptions are registry.ListOptions with what only HTTP knows.
type readOptions struct {
	registry.ListOptions
	timeout time.Duration
}

// maxTimeout is the longest timeoutSeconds that is honoured.
const maxTimeout = 24 * time.Hour

// maxSelector bounds a selector in a query: each of its terms is compared with
// every object.
const maxSelector = 64 << 10

func listOptions(r *http.Request, sv served, _ time.Time) (readOptions, error) {
	q := r.URL.Query()
	out := readOptions{ListOptions: registry.ListOptions{
		Version:  q.Get("resourceVersion"),
		Match:    metav1.ResourceVersionMatch(q.Get("resourceVersionMatch")),
		Continue: q.Get("continue"),
	}}
	if len(q.Get("labelSelector")) > maxSelector || len(q.Get("fieldSelector")) > maxSelector {
		return out, apierrors.NewBadRequest("a selector is longer than " + strconv.Itoa(maxSelector) + " bytes: list everything, or in several requests")
	}
	var err error
	if s := q.Get("labelSelector"); s != "" {
		if out.Labels, err = labels.Parse(s); err != nil {
			return out, apierrors.NewBadRequest("unable to parse labelSelector: " + err.Error())
		}
	}
	if s := q.Get("fieldSelector"); s != "" {
		if out.Fields, err = sv.parseFields(s); err != nil {
			return out, apierrors.NewBadRequest("unable to parse fieldSelector: " + err.Error())
		}
	}
	if s := q.Get("limit"); s != "" {
		if out.Limit, err = strconv.ParseInt(s, 10, 64); err != nil {
			return out, apierrors.NewBadRequest("limit: Invalid value: " + strconv.Quote(s) + ": it must be a number")
		}
	}
	if s := q.Get("timeoutSeconds"); s != "" {
		seconds, err := strconv.ParseInt(s, 10, 64)
		if err != nil || seconds < 0 {
			return out, apierrors.NewBadRequest("timeoutSeconds: Invalid value: " + strconv.Quote(s) + ": it must be a number of seconds")
		}
		out.timeout = min(time.Duration(seconds)*time.Second, maxTimeout)
	}
	out.Bookmarks = boolParam(q, "allowWatchBookmarks")
	if q.Has("sendInitialEvents") {
		out.SendInitialEvents = ptr(boolParam(q, "sendInitialEvents"))
	}
	return out, nil
}

// parseFields parses a field selector and renames a view's fields to those
// that are stored.
func (s served) parseFields(text string) (fields.Selector, error) {
	sel, err := fields.ParseSelector(text)
	if err != nil || s.view == nil {
		return sel, err
	}
	return sel.Transform(func(field, value string) (string, string, error) {
		if stored, ok := s.view.FieldNames[field]; ok {
			return stored, value, nil
		}
		return field, value, nil
	})
}

// boolParam reads a parameter as upstream does: anything but "false", "0" and
// its absence is true.
func boolParam(q url.Values, name string) bool {
	s := q.Get(name)
	return q.Has(name) && s != "0" && !strings.EqualFold(s, "false")
}

// writeOptions reads the query of a create, an update or a patch.
func writeOptions(r *http.Request, options runtime.Object) (registry.WriteOptions, registry.Validation, error) {
	q := r.URL.Query()
	out := registry.WriteOptions{Options: options, Manager: q.Get("fieldManager"), Warn: warner(r.Context()), Annotate: annotator(r.Context())}
	dry, err := dryRun(q["dryRun"])
	if err != nil {
		return out, "", err
	}
	out.DryRun = dry
	if len(out.Manager) > maxManagerLength {
		return out, "", apierrors.NewBadRequest("fieldManager: Invalid value: it may not be longer than 128 characters")
	}
	if out.Manager == "" {
		out.Manager = managerOfAgent(r.UserAgent())
	}
	fillOptions(options, q)
	validation := registry.Validation(q.Get("fieldValidation"))
	switch validation {
	case "":
		validation = registry.Warn
	case registry.Ignore, registry.Warn, registry.Strict:
	default:
		return out, "", apierrors.NewBadRequest("fieldValidation: Unsupported value: " + strconv.Quote(string(validation)) +
			": supported values: \"Ignore\", \"Strict\", \"Warn\"")
	}
	return out, validation, nil
}

// fillOptions gives options what the query says, for admission.
func fillOptions(options runtime.Object, q url.Values) {
	switch o := options.(type) {
	case *metav1.CreateOptions:
		o.DryRun, o.FieldManager, o.FieldValidation = q["dryRun"], q.Get("fieldManager"), q.Get("fieldValidation")
	case *metav1.UpdateOptions:
		o.DryRun, o.FieldManager, o.FieldValidation = q["dryRun"], q.Get("fieldManager"), q.Get("fieldValidation")
	case *metav1.PatchOptions:
		o.DryRun, o.FieldManager, o.FieldValidation = q["dryRun"], q.Get("fieldManager"), q.Get("fieldValidation")
	}
}

const maxManagerLength = 128

// managerOfAgent is the field manager of a client that names none.
func managerOfAgent(agent string) string {
	for i := range agent {
		if agent[i] == '/' {
			agent = agent[:i]
			break
		}
	}
	if len(agent) > maxManagerLength {
		agent = agent[:maxManagerLength]
	}
	if agent == "" {
		return "unknown"
	}
	return agent
}

func dryRun(values []string) (bool, error) {
	for _, v := range values {
		switch v {
		case metav1.DryRunAll:
			return true, nil
		case "":
		default:
			return false, apierrors.NewBadRequest("dryRun: Unsupported value: " + strconv.Quote(v) + ": supported values: \"All\"")
		}
	}
	return false, nil
}
