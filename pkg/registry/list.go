package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"coracle/pkg/resource"
	"coracle/pkg/storage"
	"coracle/pkg/storage/cache"
)

// ListOptions are those of a list or a watch, parsed.
type ListOptions struct {
	Labels labels.Selector // nil selects everything
	Fields fields.Selector // nil selects everything
	// Version is the resourceVersion as given: "" consistent, "0" any, N.
	Version string
	Match   metav1.ResourceVersionMatch
	Limit   int64
	// Continue is the token of the page before.
	Continue string
	// SendInitialEvents and Bookmarks are watch options.
	SendInitialEvents *bool
	Bookmarks         bool
}

// Get returns one object. version is the request's resourceVersion.
// Errors: NotFound, BadRequest, Timeout with cause ResourceVersionTooLarge.
func (r *Registry) Get(ctx context.Context, req Request, version string) (*cache.Object, error) {
	key, err := Key(req.Resource, req.Namespace, req.Name)
	if err != nil {
		return nil, err
	}
	read, err := parseRead(version)
	if err != nil {
		return nil, err
	}
	o, err := r.cfg.Cache.Get(ctx, key, read)
	return o, readError(err, req.Resource, req.Name)
}

func parseRead(version string) (cache.Read, error) {
	switch version {
	case "":
		return cache.Read{}, nil
	case "0":
		return cache.Read{Any: true}, nil
	}
	rev, err := parseRevision(version)
	return cache.Read{AtLeast: rev}, err
}

func parseRevision(version string) (storage.Revision, error) {
	n, err := strconv.ParseUint(version, 10, 63)
	if err != nil {
		return 0, invalidOptions(fmt.Sprintf("resourceVersion: Invalid value: %q: it must be the resourceVersion of an object or a list", version))
	}
	return storage.Revision(n), nil
}

func invalidOptions(msg string) error { return apierrors.NewBadRequest(msg) }

// ReadError turns an error of a Watcher into the API's.
func ReadError(err error, res *resource.Resource) error { return readError(err, res, "") }

// readError turns an error of a read into the API's.
func readError(err error, res *resource.Resource, name string) error {
	var tooLarge *cache.TooLargeError
	var expired *cache.ExpiredError
	switch {
	case errors.As(err, &tooLarge):
		status := apierrors.NewTimeoutError(fmt.Sprintf("Too large resource version: %d, current: %d", tooLarge.Asked, tooLarge.Current), 1)
		status.ErrStatus.Details.Causes = []metav1.StatusCause{{
			Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version"}}
		return status
	case errors.As(err, &expired):
		return apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d", expired.Revision))
	case errors.Is(err, storage.ErrCompacted):
		return apierrors.NewResourceExpired("the resourceVersion is too old: its history has been compacted")
	case errors.Is(err, cache.ErrNotReached):
		return apierrors.NewTimeoutError("the server is behind its store: try again", 1)
	}
	return storageError(err, res, name)
}

// List returns a page of objects.
// Errors: BadRequest, Expired (410; with a token that goes on inconsistently
// when the request had one), Timeout.
func (r *Registry) List(ctx context.Context, req Request, opts ListOptions) (*cache.List, error) {
	match, err := Selects(req.Resource, opts)
	if err != nil {
		return nil, err
	}
	if err := checkListVersion(opts); err != nil {
		return nil, err
	}
	if opts.SendInitialEvents != nil {
		return nil, invalidListOptions("sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list")
	}
	prefix := Prefix(req.Resource, req.Namespace)
	q := cache.ListOptions{Limit: int(opts.Limit), Match: match}
	if opts.Continue != "" {
		token, err := parseToken(opts.Continue)
		if err != nil {
			return nil, err
		}
		q.After = prefix + strings.TrimSuffix(token.Start, "\x00")
		if token.Revision > 0 {
			q.Read.Exact = token.Revision
		}
		page, err := r.page(ctx, req.Resource, prefix, q)
		if isExpired(err) {
			return nil, expiredToken(token)
		}
		return page, readError(err, req.Resource, "")
	}
	if q.Read, err = parseRead(opts.Version); err != nil {
		return nil, err
	}
	if opts.Match == metav1.ResourceVersionMatchExact {
		q.Read = cache.Read{Exact: q.Read.AtLeast}
	}
	if name, ok := singleName(req, opts); ok {
		if q.Key, err = Key(req.Resource, req.Namespace, name); err != nil {
			return nil, err
		}
	}
	page, err := r.page(ctx, req.Resource, prefix, q)
	return page, readError(err, req.Resource, "")
}

// singleName says that a list can only hold the object of one name.
func singleName(req Request, opts ListOptions) (string, bool) {
	if opts.Fields == nil {
		return "", false
	}
	if req.Resource.Namespaced && req.Namespace == "" {
		return "", false
	}
	return opts.Fields.RequiresExactMatch("metadata.name")
}

func isExpired(err error) bool {
	var expired *cache.ExpiredError
	return errors.As(err, &expired) || errors.Is(err, storage.ErrCompacted)
}

// checkListVersion holds the published table of resourceVersion,
// resourceVersionMatch and continue (API concepts, «Semantics for get and
// list»).
func checkListVersion(opts ListOptions) error {
	switch {
	case opts.Limit < 0:
		return invalidOptions("limit: Invalid value: it must not be negative")
	case opts.Continue != "" && opts.Version != "" && opts.Version != "0":
		return invalidOptions("specifying resource version is not allowed when using continue")
	case opts.Match == "":
		return nil
	case opts.Continue != "":
		return invalidOptions("resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided")
	case opts.Version == "":
		return invalidOptions("resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided")
	case opts.Match != metav1.ResourceVersionMatchExact && opts.Match != metav1.ResourceVersionMatchNotOlderThan:
		return invalidOptions(fmt.Sprintf("resourceVersionMatch: Unsupported value: %q: supported values: \"Exact\", \"NotOlderThan\"", opts.Match))
	case opts.Match == metav1.ResourceVersionMatchExact && opts.Version == "0":
		return invalidOptions("resourceVersionMatch: Forbidden: resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"")
	}
	return nil
}

// token is what a continue string holds, in upstream's form.
type token struct {
	Version  string           `json:"v"`
	Revision storage.Revision `json:"rv"` // -1: whatever is current
	Start    string           `json:"start"`
}

const tokenVersion = "meta.k8s.io/v1"

// ContinueToken makes the token that goes on after page, or "".
func ContinueToken(req Request, page *cache.List) string {
	if page.Next == "" {
		return ""
	}
	return encodeToken(page.Revision, strings.TrimPrefix(page.Next, Prefix(req.Resource, req.Namespace))+"\x00")
}

func encodeToken(rev storage.Revision, start string) string {
	b, err := json.Marshal(token{tokenVersion, rev, start})
	if err != nil {
		return "" // a struct of strings and numbers always encodes
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func parseToken(s string) (token, error) {
	var t token
	bad := func() (token, error) {
		return token{}, invalidOptions("continue key is not valid: use the token that the list before returned, unchanged")
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || json.Unmarshal(b, &t) != nil {
		return bad()
	}
	start := strings.TrimSuffix(t.Start, "\x00")
	if t.Version != tokenVersion || start == "" || t.Revision == 0 || t.Revision < -1 || strings.Count(start, "/") > 1 || strings.ContainsRune(start, 0) {
		return bad()
	}
	for _, part := range strings.Split(start, "/") {
		if part == "" || part == "." || part == ".." {
			return bad()
		}
	}
	return t, nil
}

// expiredToken is the 410 for a token whose snapshot is gone. It offers a new
// token that goes on at the same place in newer data.
func expiredToken(t token) error {
	status := apierrors.NewResourceExpired(
		"The provided continue parameter is too old to display a consistent list result. You can start a new list without " +
			"the continue parameter, or use the continue token in this response to retrieve the remainder of the results. " +
			"Continuing with the provided token results in an inconsistent list - objects that were created, modified, " +
			"or deleted between the time the first chunk was returned and now may show up in the list.")
	status.ErrStatus.Code = http.StatusGone
	status.ErrStatus.ListMeta.Continue = encodeToken(-1, t.Start)
	return status
}

// Watch opens a watch. Errors: BadRequest, Invalid, Expired.
func (r *Registry) Watch(ctx context.Context, req Request, opts ListOptions) (*cache.Watcher, error) {
	match, err := Selects(req.Resource, opts)
	if err != nil {
		return nil, err
	}
	if err := checkWatchOptions(opts); err != nil {
		return nil, err
	}
	q := cache.WatchOptions{Bookmarks: opts.Bookmarks, Match: match}
	if !convertsToSelect(req.Resource) {
		q.Field, q.Value = hint(req.Resource, opts.Fields)
	}
	if name, ok := singleName(req, opts); ok {
		// A name that cannot be one is no key: then the selector alone decides.
		if key, err := Key(req.Resource, req.Namespace, name); err == nil {
			q.Key = key
		}
	}
	if opts.Initial() {
		q.Initial = true
		q.Consistent = opts.Version == ""
	}
	if opts.Version != "" && opts.Version != "0" {
		if q.From, err = parseRevision(opts.Version); err != nil {
			return nil, err
		}
	}
	w, err := r.cfg.Cache.Watch(ctx, Prefix(req.Resource, req.Namespace), q)
	return w, readError(err, req.Resource, "")
}

// Initial says that a watch begins with the state: as WatchList, or in the
// oldest form of a watch, which has no end mark.
func (o ListOptions) Initial() bool {
	if o.SendInitialEvents != nil {
		return *o.SendInitialEvents
	}
	return o.Version == "" || o.Version == "0"
}

// LegacyInitial says that a watch sends the initial state without the
// bookmark that ends it, as clients before WatchList expect.
func (o ListOptions) LegacyInitial() bool { return o.SendInitialEvents == nil }

// checkWatchOptions holds KEP-3157's rules for sendInitialEvents.
func checkWatchOptions(opts ListOptions) error {
	var causes []string
	switch {
	case opts.SendInitialEvents == nil && opts.Match != "":
		causes = append(causes, "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")
	case opts.SendInitialEvents != nil && opts.Match != metav1.ResourceVersionMatchNotOlderThan:
		causes = append(causes, "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
	}
	if opts.SendInitialEvents != nil && *opts.SendInitialEvents && !opts.Bookmarks {
		causes = append(causes, "allowWatchBookmarks: Forbidden: sendInitialEvents requires setting allowWatchBookmarks to true")
	}
	if len(causes) > 0 {
		return invalidListOptions(causes...)
	}
	return nil
}

func invalidListOptions(causes ...string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid,
		Message: "ListOptions.meta.k8s.io \"\" is invalid: " + strings.Join(causes, ", "),
	}}
}
