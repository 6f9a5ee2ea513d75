package registry_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"coracle/pkg/admission"
	"coracle/pkg/registry"
	"coracle/pkg/resource"
)

// templateSpy notes the templates of what it is asked about.
type templateSpy struct{ seen []*resource.Template }

func (*templateSpy) Name() string { return "spy" }

func (s *templateSpy) Validate(_ context.Context, a *admission.Attributes) error {
	if a.Operation == admission.Create {
		s.seen = append(s.seen, a.Template)
	}
	return nil
}

// TestTemplates: pods of one template are known for it from the third on, with
// whatever name their token's volume has, and whatever is wrong with one of them
// is found all the same.
func TestTemplates(t *testing.T) {
	spy := &templateSpy{}
	n := 0
	suffix := func() (string, error) { n++; return "bcdf" + string("ghjklmnp"[n%8]), nil }
	k := newPodKit(t, admission.ServiceAccount{Objects: accounts{}, Suffix: suffix}, spy)
	for i := range 4 {
		k.create(t, fmt.Sprint("pod-", i))
	}
	if len(spy.seen) != 4 || spy.seen[0] != nil || spy.seen[1] != nil || spy.seen[2] == nil || spy.seen[3] != spy.seen[2] {
		t.Fatalf("templates of four pods: %v", spy.seen)
	}
	good := benchPod("pod-5")
	for name, change := range map[string][2]string{
		"a name":                {`"name":"pod-5"`, `"name":"Pod 5"`},
		"a label":               {`"tier":"backend"`, `"tier":"back end"`},
		"an annotation":         {`"bench.coracle.dev/note"`, `"controller.kubernetes.io/pod-deletion-cost"`},
		"a profile":             {`"bench.coracle.dev/note"`, `"container.apparmor.security.beta.kubernetes.io/nobody"`},
		"a port":                {`"containerPort":8080`, `"containerPort":808000`},
		"a mount of no volume":  {`"name":"scratch","mountPath"`, `"name":"scratches","mountPath"`},
		"a volume without kind": {`"emptyDir":{}`, `"hostPath":{"path":"../.."}`},
	} {
		body := bytes.Replace(good, []byte(change[0]), []byte(change[1]), 1)
		if bytes.Equal(body, good) {
			t.Fatalf("%s: the pod has no %s", name, change[0])
		}
		obj, err := k.decoder.DecodeFor(k.res, body, registry.JSON, registry.Warn, func(text string) { t.Error(text) })
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Create(t.Context(), registry.Request{Resource: k.res, Namespace: "default"}, obj, registry.WriteOptions{Manager: "m"}); !apierrors.IsInvalid(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTemplatesTogether creates pods of several templates at the same time.
func TestTemplatesTogether(t *testing.T) {
	k := newPodKit(t)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 20 {
				body := bytes.ReplaceAll(benchPod(fmt.Sprint("pod-", w, "-", i)), []byte("1.24.3"), []byte(fmt.Sprint("1.24.", i%3)))
				obj, err := k.decoder.DecodeFor(k.res, body, registry.JSON, registry.Warn, func(text string) { t.Error(text) })
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := k.Create(t.Context(), registry.Request{Resource: k.res, Namespace: "default"}, obj, registry.WriteOptions{Manager: "m"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
