package controllers_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"coracle/pkg/controllers"
)

// misfit is an object that a controller cannot reconcile, beside one that it can.
type misfit struct {
	// never says why there can be no such pair; then there is nothing else.
	never string
	// config is what the controller needs to run.
	config func(*controllers.Config)
	// before makes what both objects need.
	before func(c *cluster)
	// refuse are resources, as group/version/resource, of which the server refuses
	// the controllers every write to an object with "bad" in its name, in the
	// beginning of that, or in its namespace's.
	refuse []string
	// bad makes the object, told says whether users hear why nothing comes of it:
	// with the reason that upstream's controller gives, nil where that gives none.
	bad  func(c *cluster)
	told func(c *cluster) error
	// good makes the other one, which is served when it returns nil, soon after, or
	// after a time that has to pass in any case.
	good   func(c *cluster)
	served func(c *cluster) error
	after  time.Duration
}

const (
	// promptly is how soon a good object is served.
	promptly = 5 * time.Second
	// watched is for how long a bad object's attempts are counted.
	watched = 5 * time.Minute
	// mostWrites is how many there may be then, what the good object causes among
	// them: one in 5 s. Whoever does not back off makes thousands.
	mostWrites = 60
)

// TestBadInput: an object that cannot be reconciled says why where upstream's does,
// is tried ever more rarely, and delays no other. Every controller has its row.
func TestBadInput(t *testing.T) {
	rows := misfits()
	names := controllers.Names()
	for name := range rows {
		if !slices.Contains(names, name) {
			t.Errorf("there is no controller %s", name)
		}
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			m, ok := rows[name]
			switch {
			case !ok:
				t.Fatal("the controller has no row: add what it cannot reconcile, or why that cannot be")
			case m.never != "":
				if m.bad != nil || m.served != nil {
					t.Error("what never happens has a test")
				}
				return
			}
			bubble(t, func(t *testing.T, c *cluster) { m.run(c) })
		})
	}
}

func (m *misfit) run(c *cluster) {
	k := &ledger{}
	var change []func(*controllers.Config)
	if m.config != nil {
		change = append(change, m.config)
	}
	c.t.Cleanup(c.startControllers(transports{write: k.wrap}, change...))
	time.Sleep(15 * time.Second) // they furnish the cluster
	if m.before != nil {
		m.before(c)
	}
	c.refuse(m.refuse...)
	m.bad(c)
	if m.told != nil {
		c.eventually("users hear why", func() error { return m.told(c) })
	}
	time.Sleep(time.Minute)
	m.good(c)
	time.Sleep(m.after)
	c.patience = promptly
	c.eventually("the good object is served", func() error { return m.served(c) })
	time.Sleep(time.Minute)
	k.take()
	time.Sleep(watched)
	first := k.take()
	time.Sleep(watched)
	second := k.take()
	if len(first) > mostWrites || len(second) > mostWrites {
		c.t.Errorf("there are %d, then %d writes in %v, among them\n%s", len(first), len(second), watched, strings.Join(second[:min(len(second), 8)], "\n"))
	}
	if m.told != nil {
		if err := m.told(c); err != nil {
			c.t.Errorf("what is wrong was told and then forgotten: %v", err)
		}
	}
}

// ledger notes writes.
type ledger struct {
	mu   sync.Mutex
	list []string // guarded by mu
}

func (k *ledger) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		if r.Method != http.MethodGet {
			k.mu.Lock()
			k.list = append(k.list, r.Method+" "+r.URL.Path)
			k.mu.Unlock()
		}
		return next.RoundTrip(r)
	})
}

// take returns the writes since it was called before.
func (k *ledger) take() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := k.list
	k.list = nil
	return out
}

// refuse has the server refuse controllers the writes that misfit.refuse tells of.
func (c *cluster) refuse(resources ...string) {
	c.t.Helper()
	if len(resources) == 0 {
		return
	}
	p := &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "no"}}
	p.Spec.MatchConstraints = &admissionv1.MatchResources{}
	for _, r := range resources {
		part := strings.SplitN(r, "/", 3)
		p.Spec.MatchConstraints.ResourceRules = append(p.Spec.MatchConstraints.ResourceRules, admissionv1.NamedRuleWithOperations{
			RuleWithOperations: admissionv1.RuleWithOperations{
				Operations: []admissionv1.OperationType{admissionv1.OperationAll},
				Rule:       admissionv1.Rule{APIGroups: part[:1], APIVersions: part[1:2], Resources: []string{part[2], part[2] + "/status"}},
			},
		})
	}
	p.Spec.MatchConditions = []admissionv1.MatchCondition{{Name: "controllers", Expression: "request.userInfo.username.startsWith('system:serviceaccount:kube-system:')"}}
	p.Spec.Validations = []admissionv1.Validation{{
		Expression: "!(request.name.contains('bad') || request.?namespace.orValue('').contains('bad') || object != null && object.metadata.?generateName.orValue('').contains('bad'))",
		Message:    "it is bad",
	}}
	client := c.Client.AdmissionregistrationV1()
	if _, err := client.ValidatingAdmissionPolicies().Create(c.t.Context(), p, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	b := &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: "no"}, Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
		PolicyName: "no", ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
	}}
	if _, err := client.ValidatingAdmissionPolicyBindings().Create(c.t.Context(), b, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	time.Sleep(time.Second)
}

// resourceOf reads group/version/resource.
func resourceOf(text string) schema.GroupVersionResource {
	part := strings.SplitN(text, "/", 3)
	return schema.GroupVersionResource{Group: part[0], Version: part[1], Resource: part[2]}
}

// put makes an object of a resource out of YAML, with this name.
func put(resource, name, text string) func(*cluster) {
	return func(c *cluster) {
		c.t.Helper()
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
			c.t.Fatal(err)
		}
		o.SetName(name)
		if _, err := c.dynamic(resource, o.GetNamespace()).Create(c.t.Context(), o, metav1.CreateOptions{}); err != nil {
			c.t.Fatalf("make %s %s: %v", resource, name, err)
		}
	}
}

// drop deletes an object in the background.
func drop(resource, namespace, name string) func(*cluster) {
	return func(c *cluster) {
		c.t.Helper()
		if err := c.dynamic(resource, namespace).Delete(c.t.Context(), name, metav1.DeleteOptions{PropagationPolicy: new(metav1.DeletePropagationBackground)}); err != nil {
			c.t.Fatal(err)
		}
	}
}

// all does one after the other.
func all(steps ...func(*cluster)) func(*cluster) {
	return func(c *cluster) {
		c.t.Helper()
		for _, step := range steps {
			step(c)
		}
	}
}

func (c *cluster) dynamic(resource, namespace string) dynamic.ResourceInterface {
	config := c.Admin()
	config.ContentType, config.AcceptContentTypes = "application/json", "application/json"
	all := dynamic.NewForConfigOrDie(config).Resource(resourceOf(resource))
	if namespace == "" {
		return all
	}
	return all.Namespace(namespace)
}

// has wants a field of an object to be there and, unless that is empty, to contain
// want.
func has(resource, namespace, name, field, want string) func(*cluster) error {
	return func(c *cluster) error {
		o, err := c.dynamic(resource, namespace).Get(c.t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		value, ok, err := unstructured.NestedFieldNoCopy(o.Object, strings.Split(field, ".")...)
		if err != nil || !ok || !strings.Contains(fmt.Sprint(value), want) {
			return fmt.Errorf("%s is %v (%v), want %s; the status is %v", field, value, err, want, o.Object["status"])
		}
		return nil
	}
}

// says wants a condition with this status and reason.
func says(resource, namespace, name, condition, status, reason string) func(*cluster) error {
	return func(c *cluster) error {
		o, err := c.dynamic(resource, namespace).Get(c.t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		list, _, err := unstructured.NestedSlice(o.Object, "status", "conditions")
		if err != nil {
			return err
		}
		for _, item := range list {
			if got, ok := item.(map[string]any); ok && got["type"] == condition && got["status"] == status && got["reason"] == reason {
				return nil
			}
		}
		return fmt.Errorf("no condition %s=%s for %s in %v", condition, status, reason, list)
	}
}

// event wants an Event of this reason about an object whose name begins so.
func event(namespace, name, reason string) func(*cluster) error {
	return func(c *cluster) error {
		list, err := c.Client.CoreV1().Events(namespace).List(c.t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		var seen []string
		for _, e := range list.Items {
			if strings.HasPrefix(e.InvolvedObject.Name, name) {
				if e.Reason == reason {
					return nil
				}
				seen = append(seen, e.Reason+": "+e.Message)
			}
		}
		return fmt.Errorf("no %s among %q", reason, seen)
	}
}

// both wants all that is asked for.
func both(checks ...func(*cluster) error) func(*cluster) error {
	return func(c *cluster) error {
		for _, check := range checks {
			if err := check(c); err != nil {
				return err
			}
		}
		return nil
	}
}

// lacks wants an object not to be there.
func lacks(resource, namespace, name string) func(*cluster) error {
	return func(c *cluster) error {
		o, err := c.dynamic(resource, namespace).Get(c.t.Context(), name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		return fmt.Errorf("%s is there: deleted %v, finalizers %v", name, o.GetDeletionTimestamp(), o.GetFinalizers())
	}
}
