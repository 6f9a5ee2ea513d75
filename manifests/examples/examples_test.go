// Package examples tests the example manifests without a cluster: they decode
// strictly, and what they refer to is there.
package examples

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/yaml"
	sigyaml "sigs.k8s.io/yaml"
)

// demo is the decoded content of the folder.
type demo struct {
	namespace   corev1.Namespace
	config      corev1.ConfigMap
	secret      corev1.Secret
	deployments map[string]*appsv1.Deployment
	services    map[string]*corev1.Service
}

func load(t *testing.T) *demo {
	t.Helper()
	d := &demo{deployments: map[string]*appsv1.Deployment{}, services: map[string]*corev1.Service{}}
	files, err := filepath.Glob("demo/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no manifests: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		docs := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
		for {
			doc, err := docs.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			d.decode(t, file, doc)
		}
	}
	return d
}

func (d *demo) decode(t *testing.T, file string, doc []byte) {
	t.Helper()
	var kind struct{ Kind string }
	if err := sigyaml.Unmarshal(doc, &kind); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	strict := func(into any) {
		if err := sigyaml.UnmarshalStrict(doc, into); err != nil {
			t.Errorf("%s: %s: %v", file, kind.Kind, err)
		}
	}
	switch kind.Kind {
	case "Namespace":
		strict(&d.namespace)
	case "ConfigMap":
		strict(&d.config)
	case "Secret":
		strict(&d.secret)
	case "Deployment":
		dep := new(appsv1.Deployment)
		strict(dep)
		d.deployments[dep.Name] = dep
	case "Service":
		svc := new(corev1.Service)
		strict(svc)
		d.services[svc.Name] = svc
	default:
		t.Errorf("%s: unexpected kind %q", file, kind.Kind)
	}
}

func TestDemoIsConsistent(t *testing.T) {
	d := load(t)
	if got := slices.Sorted(maps.Keys(d.deployments)); !slices.Equal(got, []string{"store", "web"}) {
		t.Fatalf("deployments %v", got)
	}
	for name, dep := range d.deployments {
		if dep.Namespace != d.namespace.Name {
			t.Errorf("deployment %s is in namespace %q", name, dep.Namespace)
		}
		template := labels.Set(dep.Spec.Template.Labels)
		if !labels.SelectorFromSet(dep.Spec.Selector.MatchLabels).Matches(template) {
			t.Errorf("deployment %s does not select its own pods", name)
		}
		svc := d.services[name]
		if svc == nil || !labels.SelectorFromSet(svc.Spec.Selector).Matches(template) {
			t.Fatalf("service %s does not select the pods of deployment %s", name, name)
		}
		container := dep.Spec.Template.Spec.Containers[0]
		if want := "coracle.dev/demo-" + name + ":v1"; container.Image != want {
			t.Errorf("deployment %s runs %s, want %s", name, container.Image, want)
		}
		if svc.Spec.Ports[0].TargetPort.StrVal != container.Ports[0].Name {
			t.Errorf("service %s aims at port %s", name, svc.Spec.Ports[0].TargetPort.StrVal)
		}
		d.checkReferences(t, name, dep)
	}
	if got := d.config.Data["store-url"]; got != "http://store:8080" || d.services["store"].Spec.Ports[0].Port != 8080 {
		t.Errorf("the store is at %s", got)
	}
	if d.services["web"].Spec.Ports[0].NodePort == 0 {
		t.Error("the web service has no node port of its own")
	}
}

// checkReferences looks up every key and volume that a pod template names.
func (d *demo) checkReferences(t *testing.T, name string, dep *appsv1.Deployment) {
	t.Helper()
	for _, e := range dep.Spec.Template.Spec.Containers[0].Env {
		if e.ValueFrom == nil {
			continue
		}
		if ref := e.ValueFrom.ConfigMapKeyRef; ref != nil && (ref.Name != d.config.Name || d.config.Data[ref.Key] == "") {
			t.Errorf("deployment %s: no key %s in ConfigMap %s", name, ref.Key, ref.Name)
		}
		if ref := e.ValueFrom.SecretKeyRef; ref != nil && (ref.Name != d.secret.Name || d.secret.StringData[ref.Key] == "") {
			t.Errorf("deployment %s: no key %s in Secret %s", name, ref.Key, ref.Name)
		}
	}
	volumes := map[string]corev1.Volume{}
	for _, v := range dep.Spec.Template.Spec.Volumes {
		volumes[v.Name] = v
		if v.ConfigMap != nil {
			for _, item := range v.ConfigMap.Items {
				if d.config.Data[item.Key] == "" {
					t.Errorf("deployment %s: no key %s for volume %s", name, item.Key, v.Name)
				}
			}
		}
	}
	for _, m := range dep.Spec.Template.Spec.Containers[0].VolumeMounts {
		if _, ok := volumes[m.Name]; !ok {
			t.Errorf("deployment %s mounts the unknown volume %s", name, m.Name)
		}
	}
}
