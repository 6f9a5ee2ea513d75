package ctl

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/client-go/tools/clientcmd"
)

// exitError ends ctl with a code of its own; err may be nil, for commands
// whose code says all.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err != nil {
		return e.err.Error()
	}
	return fmt.Sprintf("exit code %d", e.code)
}

func (e *exitError) Unwrap() error { return e.err }

// usageError is a command line that was not understood; the help is pointed
// to.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// between returns an argument check: at least lo and at most hi arguments (hi
// below 0 for any number), with a sentence that says what is expected.
func between(lo, hi int, want string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < lo || hi >= 0 && len(args) > hi {
			return usagef("got %d arguments, expected %s", len(args), want)
		}
		return nil
	}
}

// explain makes sentences for the user out of an error: what failed, and what
// to do about it. Several errors become several lines.
func (t *tool) explain(err error) string {
	var lines []string
	for _, e := range flatten(err) {
		if line := escape(t.sentence(e)); !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\nError: ")
}

// flatten lists the errors in joined and aggregated ones.
func flatten(err error) []error {
	var out []error
	switch e := err.(type) {
	case nil:
		return nil
	case utilerrors.Aggregate:
		for _, inner := range e.Errors() {
			out = append(out, flatten(inner)...)
		}
		return out
	case interface{ Unwrap() []error }:
		if !strings.Contains(err.Error(), "\n") {
			return []error{err} // a sentence that wraps several
		}
		for _, inner := range e.Unwrap() {
			out = append(out, flatten(inner)...)
		}
		return out
	}
	return []error{err}
}

func (t *tool) sentence(err error) string {
	var urlErr *url.Error
	var noKind *meta.NoKindMatchError
	var hint string
	switch {
	case errors.Is(err, context.Canceled):
		return "interrupted"
	case clientcmd.IsEmptyConfig(err):
		return t.noKubeconfig()
	case clientcmd.IsContextNotFound(err):
		hint = t.contextHint()
	case errors.As(err, &urlErr):
		return t.unreachable(urlErr)
	case apierrors.IsForbidden(err):
		hint = t.forbiddenHint(err)
	case apierrors.IsUnauthorized(err):
		return fmt.Sprintf("the server does not accept the credentials of %s: has the cluster been made anew? Get a fresh kubeconfig, for a local cluster with \"ctl cluster kubeconfig NAME\"", t.contextName())
	case apierrors.IsConflict(err) && strings.Contains(err.Error(), "Apply failed"):
		hint = "Remove these fields from what is applied to leave them to their manager, or take them over with --force-conflicts"
	case errors.As(err, &noKind):
		hint = "\"ctl api-resources\" lists the kinds that the server has; a custom resource needs its CustomResourceDefinition first"
	default:
		if m := unknownType.FindStringSubmatch(err.Error()); m != nil {
			return t.unknownType(m[1])
		}
	}
	text := strings.TrimSuffix(strings.TrimPrefix(err.Error(), "error: "), "\n")
	if hint != "" {
		text += ". " + hint
	}
	return text
}

// unknownType is how the resource builder says that there is no such type.
var unknownType = regexp.MustCompile(`doesn't have a resource type "([^"]*)"`)

func (t *tool) unknownType(name string) string {
	if near := nearest(name, t.typeNames()); near != "" {
		return fmt.Sprintf("the server has no resource type %q; did you mean %q? (\"ctl api-resources\" lists them all)", name, near)
	}
	return fmt.Sprintf("the server has no resource type %q (\"ctl api-resources\" lists them all)", name)
}

func (t *tool) noKubeconfig() string {
	return "there is no kubeconfig, so no cluster to talk to: make a local cluster with \"ctl cluster create\", or name a kubeconfig with --kubeconfig FILE or $KUBECONFIG"
}

func (t *tool) contextName() string {
	if *t.flags.Context != "" {
		return fmt.Sprintf("context %q", *t.flags.Context)
	}
	raw, err := t.flags.ToRawKubeConfigLoader().RawConfig()
	if err != nil || raw.CurrentContext == "" {
		return "the command line"
	}
	return fmt.Sprintf("context %q", raw.CurrentContext)
}

func (t *tool) contextHint() string {
	raw, err := t.flags.ToRawKubeConfigLoader().RawConfig()
	if err != nil || len(raw.Contexts) == 0 {
		return "The kubeconfig has no contexts"
	}
	names := make([]string, 0, len(raw.Contexts))
	for name := range raw.Contexts {
		names = append(names, name)
	}
	slices.Sort(names)
	return "The kubeconfig has: " + strings.Join(names, ", ")
}

// unreachable explains a request that got no answer.
func (t *tool) unreachable(err *url.Error) string {
	server := err.URL
	if u, parseErr := url.Parse(err.URL); parseErr == nil && u.Host != "" {
		server = u.Scheme + "://" + u.Host
	}
	raw, configErr := t.flags.ToRawKubeConfigLoader().RawConfig()
	if configErr == nil && len(raw.Clusters) == 0 && *t.flags.APIServer == "" {
		return t.noKubeconfig()
	}
	var dns *net.DNSError
	text := err.Err.Error()
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("nothing listens at %s, the server of %s: is the cluster running? (\"ctl cluster list\", \"ctl cluster start\")", server, t.contextName())
	case errors.As(err, &dns):
		return fmt.Sprintf("the name of the server %s of %s cannot be resolved: %v", server, t.contextName(), dns)
	case err.Timeout():
		return fmt.Sprintf("the server %s of %s does not answer: is it reachable from here, and is --request-timeout long enough?", server, t.contextName())
	case strings.Contains(text, "x509") || strings.Contains(text, "certificate"):
		return fmt.Sprintf("no trusted connection to %s, the server of %s: %s. Does the kubeconfig belong to this cluster?", server, t.contextName(), text)
	}
	return fmt.Sprintf("no answer from %s, the server of %s: %s", server, t.contextName(), text)
}

func (t *tool) forbiddenHint(err error) string {
	if strings.Contains(err.Error(), "system:anonymous") {
		return "The request carried no credentials: does " + t.contextName() + " name a user?"
	}
	if strings.Contains(err.Error(), "cannot") {
		return "\"ctl auth can-i --list\" shows what you may do"
	}
	return ""
}

// nearest returns the candidate that is a slip of the keyboard away, or "".
func nearest(word string, candidates []string) string {
	best, bestDistance := "", max(1, len(word)/3)+1
	for _, c := range candidates {
		if d := distance(strings.ToLower(word), c); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance is the least number of letters to insert, delete or replace.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost = 1 + min(diagonal, row[j], row[j-1])
			}
			diagonal, row[j] = row[j], cost
		}
	}
	return row[len(b)]
}
