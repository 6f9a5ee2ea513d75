package auth

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestForbidden(t *testing.T) {
	u := &User{Name: "x"}
	for _, tc := range []struct {
		a      Attributes
		reason string
		want   string
	}{
		{Attributes{User: u, Verb: "list", Resource: "pods", Namespace: "default", ResourceRequest: true}, "",
			`User "x" cannot list resource "pods" in API group "" in the namespace "default"`},
		{Attributes{User: u, Verb: "get", APIGroup: "apps", Resource: "deployments", Subresource: "scale", Name: "a", ResourceRequest: true}, "why",
			`User "x" cannot get resource "deployments/scale" in API group "apps" at the cluster scope: why`},
		{Attributes{User: u, Verb: "get", Path: "/metrics"}, "",
			`User "x" cannot get path "/metrics"`},
	} {
		if got := tc.a.Forbidden(tc.reason); got != tc.want {
			t.Errorf("got  %s\nwant %s", got, tc.want)
		}
	}
}

func answer(d Decision, reason string, err error) Authorizer {
	return AuthorizerFunc(func(context.Context, Attributes) (Decision, string, error) { return d, reason, err })
}

func TestUnion(t *testing.T) {
	broken := errors.New("broken")
	for _, tc := range []struct {
		name   string
		union  Union
		want   Decision
		reason string
		err    error
	}{
		{"nobody", nil, NoOpinion, "", nil},
		{"first opinion", Union{answer(NoOpinion, "a", nil), answer(Allow, "b", nil), answer(Deny, "c", nil)}, Allow, "b", nil},
		{"deny ends it", Union{answer(Deny, "a", nil), answer(Allow, "b", nil)}, Deny, "a", nil},
		{"reasons add up", Union{answer(NoOpinion, "a", nil), answer(NoOpinion, "", broken), answer(NoOpinion, "c", nil)}, NoOpinion, "a\nc", broken},
		{"an error does not end it", Union{answer(NoOpinion, "", broken), answer(Allow, "", nil)}, Allow, "", nil},
	} {
		d, reason, err := tc.union.Authorize(t.Context(), Attributes{User: &User{}})
		if d != tc.want || reason != tc.reason || !errors.Is(err, tc.err) {
			t.Errorf("%s: %v %q %v", tc.name, d, reason, err)
		}
	}
	var zero Decision
	if zero != Deny {
		t.Error("the zero decision does not refuse")
	}
}

func TestMasters(t *testing.T) {
	for group, want := range map[string]Decision{GroupMasters: Allow, "system:masterss": NoOpinion, "": NoOpinion} {
		if d, _, _ := (Masters{}).Authorize(t.Context(), Attributes{User: &User{Groups: []string{group}}}); d != want {
			t.Errorf("%q: %v", group, d)
		}
	}
	if d, _, _ := (Masters{}).Authorize(t.Context(), Attributes{}); d != NoOpinion {
		t.Error("no user at all is allowed")
	}
}

// grants allows requests by text.
func grants(texts ...string) Authorizer {
	return AuthorizerFunc(func(_ context.Context, a Attributes) (Decision, string, error) {
		resource := a.Resource
		if a.Subresource != "" {
			resource += "/" + a.Subresource
		}
		if slices.Contains(texts, strings.Join([]string{a.Verb, a.APIGroup, resource, a.Namespace, a.Name}, ",")) {
			return Allow, "", nil
		}
		return NoOpinion, "not granted", nil
	})
}

func TestImpersonate(t *testing.T) {
	const authn = "authentication.k8s.io"
	all := grants(
		"impersonate,,users,,ann", "impersonate,,users,,system:anonymous", "impersonate,,groups,,dev", "impersonate,,groups,,system:authenticated",
		"impersonate,,groups,,system:unauthenticated", "impersonate,,serviceaccounts,ns,sa", "impersonate,"+authn+",uids,,7",
		"impersonate,"+authn+",userextras/scopes,,a", "impersonate,"+authn+",userextras/acme.com/project,,p", "impersonate,,users,,system:serviceaccount:odd")
	for _, tc := range []struct {
		name    string
		headers []string
		want    *User
		refused string
		bad     bool
	}{
		{name: "none"},
		{name: "user", headers: []string{"Impersonate-User: ann"}, want: &User{Name: "ann", Groups: []string{"system:authenticated"}}},
		{name: "user and group", headers: []string{"Impersonate-User: ann", "Impersonate-Group: dev"}, want: &User{Name: "ann", Groups: []string{"dev", "system:authenticated"}}},
		{name: "authenticated itself", headers: []string{"Impersonate-User: ann", "Impersonate-Group: system:authenticated"}, want: &User{Name: "ann", Groups: []string{"system:authenticated"}}},
		{name: "anonymous", headers: []string{"Impersonate-User: system:anonymous"}, want: &User{Name: "system:anonymous", Groups: []string{"system:unauthenticated"}}},
		{name: "service account", headers: []string{"Impersonate-User: system:serviceaccount:ns:sa"},
			want: &User{Name: "system:serviceaccount:ns:sa", Groups: []string{"system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"}}},
		{name: "service account with groups", headers: []string{"Impersonate-User: system:serviceaccount:ns:sa", "Impersonate-Group: dev"},
			want: &User{Name: "system:serviceaccount:ns:sa", Groups: []string{"dev", "system:authenticated"}}},
		{name: "no service account's name", headers: []string{"Impersonate-User: system:serviceaccount:odd"}, want: &User{Name: "system:serviceaccount:odd", Groups: []string{"system:authenticated"}}},
		{name: "uid and extra", headers: []string{"Impersonate-User: ann", "Impersonate-Uid: 7", "Impersonate-Extra-Scopes: a", "Impersonate-Extra-Acme.com%2fproject: p"},
			want: &User{Name: "ann", UID: "7", Groups: []string{"system:authenticated"}, Extra: map[string][]string{"scopes": {"a"}, "acme.com/project": {"p"}}}},
		{name: "user not granted", headers: []string{"Impersonate-User: root"}, refused: `User "me" cannot impersonate resource "users" in API group "" at the cluster scope: not granted`},
		{name: "group not granted", headers: []string{"Impersonate-User: ann", "Impersonate-Group: dev", "Impersonate-Group: system:masters"}, refused: `cannot impersonate resource "groups"`},
		{name: "service account not granted", headers: []string{"Impersonate-User: system:serviceaccount:kube-system:sa"}, refused: `cannot impersonate resource "serviceaccounts" in API group "" in the namespace "kube-system"`},
		{name: "uid not granted", headers: []string{"Impersonate-User: ann", "Impersonate-Uid: 8"}, refused: `cannot impersonate resource "uids" in API group "authentication.k8s.io"`},
		{name: "one extra value not granted", headers: []string{"Impersonate-User: ann", "Impersonate-Extra-Scopes: a", "Impersonate-Extra-Scopes: b"}, refused: `cannot impersonate resource "userextras/scopes"`},
		{name: "group alone", headers: []string{"Impersonate-Group: dev"}, bad: true},
		{name: "extra alone", headers: []string{"Impersonate-Extra-Scopes: a"}, bad: true},
		{name: "uid alone", headers: []string{"Impersonate-Uid: 7"}, bad: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			u, err := Impersonate(t.Context(), request("/", nil, tc.headers...).Header, &User{Name: "me"}, all)
			var forbidden *ForbiddenError
			switch {
			case tc.bad:
				if u != nil || !errors.Is(err, ErrBadImpersonation) {
					t.Errorf("%v %v", u, err)
				}
			case tc.refused != "":
				if u != nil || !errors.As(err, &forbidden) || !strings.Contains(err.Error(), tc.refused) || forbidden.Attributes.User.Name != "me" {
					t.Errorf("%v %v", u, err)
				}
			default:
				if diff := cmp.Diff(tc.want, u); diff != "" || err != nil {
					t.Errorf("%v\n%s", err, diff)
				}
			}
		})
	}
}

func TestReviewAccess(t *testing.T) {
	var asked Attributes
	authz := AuthorizerFunc(func(_ context.Context, a Attributes) (Decision, string, error) {
		asked = a
		return NoOpinion, "because", errors.New("incomplete")
	})
	status := ReviewAccess(t.Context(), authz, &authorizationv1.SubjectAccessReviewSpec{
		User: "ann", UID: "7", Groups: []string{"dev"}, Extra: map[string]authorizationv1.ExtraValue{"Scopes": {"a"}},
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Namespace: "ns", Verb: "list", Group: "apps", Resource: "deployments", Subresource: "scale", Name: "x",
			FieldSelector: &authorizationv1.FieldSelectorAttributes{Requirements: []metav1.FieldSelectorRequirement{
				{Key: "spec.nodeName", Operator: metav1.FieldSelectorOpIn, Values: []string{"n1"}},
				{Key: "other", Operator: metav1.FieldSelectorOpExists},
			}},
			LabelSelector: &authorizationv1.LabelSelectorAttributes{RawSelector: "a in (b)"},
		},
	})
	if status.Allowed || status.Denied || status.Reason != "because" ||
		!strings.HasPrefix(status.EvaluationError, "incomplete; ") || !strings.Contains(status.EvaluationError, "other Exists") {
		t.Errorf("%+v", status)
	}
	if len(asked.FieldSelector) != 1 || asked.FieldSelector[0].Value != "n1" || len(asked.LabelSelector) != 1 || asked.LabelSelector[0].String() != "a in (b)" {
		t.Errorf("selectors %v %v", asked.FieldSelector, asked.LabelSelector)
	}
	asked.FieldSelector, asked.LabelSelector = nil, nil
	want := Attributes{
		User: &User{Name: "ann", UID: "7", Groups: []string{"dev"}, Extra: map[string][]string{"scopes": {"a"}}},
		Verb: "list", Namespace: "ns", APIGroup: "apps", APIVersion: "*", Resource: "deployments", Subresource: "scale", Name: "x", ResourceRequest: true,
	}
	if diff := cmp.Diff(want, asked); diff != "" {
		t.Error(diff)
	}
	self := ReviewSelfAccess(t.Context(), answer(Deny, "", nil), &User{Name: "me"}, &authorizationv1.SelfSubjectAccessReviewSpec{
		NonResourceAttributes: &authorizationv1.NonResourceAttributes{Verb: "get", Path: "/x"},
	})
	if self.Allowed || !self.Denied {
		t.Errorf("%+v", self)
	}
}

func TestReviewToken(t *testing.T) {
	api := []string{"api"}
	got := ReviewToken(t.Context(), tokens{}, api, &authenticationv1.TokenReviewSpec{Token: "good:ann"})
	want := authenticationv1.TokenReviewStatus{
		Authenticated: true,
		User:          authenticationv1.UserInfo{Username: "ann", Groups: []string{"system:authenticated"}},
		Audiences:     api,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	got = ReviewToken(t.Context(), tokens{}, api, &authenticationv1.TokenReviewSpec{Token: "good:ann", Audiences: []string{"vault"}})
	if !cmp.Equal(got.Audiences, []string{"vault"}) {
		t.Errorf("%+v", got)
	}
	for token, message := range map[string]string{"bad": "token is bad", "unknown": "", "": "invalid bearer token"} {
		got := ReviewToken(t.Context(), tokens{}, api, &authenticationv1.TokenReviewSpec{Token: token})
		if got.Authenticated || got.Error != message {
			t.Errorf("%q: %+v", token, got)
		}
	}
}

func TestReviewRules(t *testing.T) {
	status := ReviewRules(t.Context(), Union{Masters{}, answer(NoOpinion, "", nil)}, &User{Name: "x"}, "ns")
	if status.ResourceRules == nil || status.NonResourceRules == nil || !status.Incomplete {
		t.Errorf("%+v", status)
	}
	status = ReviewRules(t.Context(), Union{Masters{}}, &User{Groups: []string{GroupMasters}}, "ns")
	if len(status.ResourceRules) != 1 || len(status.NonResourceRules) != 1 || status.Incomplete {
		t.Errorf("%+v", status)
	}
}

func FuzzImpersonate(f *testing.F) {
	f.Add("Impersonate-User", "a", "Impersonate-Extra-%zz", "b")
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2 string) {
		h := http.Header{}
		h.Add(k1, v1)
		h.Add(k2, v2)
		u, err := Impersonate(context.Background(), h, &User{Name: "me"}, answer(NoOpinion, "", nil))
		if u != nil {
			t.Errorf("%v became %+v without any right (%v)", h, u, err)
		}
	})
}
