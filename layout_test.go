// Package coracle holds the test of the project's layout: which package may
// import which, and why. ARCHITECTURE.md says it in words.
package coracle

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// goPackage is what "go list -json" says of a package.
type goPackage struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string
}

func list(t *testing.T, args ...string) []goPackage {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json"}, args...)...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatalf("go list: %v", err)
	}
	var pkgs []goPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// layer says what a part of the project may import of the rest of it, by
// prefix. Everything may import itself. A part that is not listed fails.
var layers = map[string][]string{
	// Leaves: they know nothing of the project.
	"pkg/pki":           {},
	"pkg/nodeconfig":    {},
	"pkg/network":       {},
	"pkg/image":         {},
	"pkg/resource":      {},
	"pkg/metrics":       {},
	"pkg/callout":       {},
	"pkg/quota":         {},
	"pkg/placement":     {},
	"pkg/volumebinding": {},
	"pkg/podbinding":    {},
	"pkg/localpath":     {},
	"pkg/attachment":    {},
	// The server side, each on what is below it.
	"pkg/storage":   {},
	"pkg/auth":      {"pkg/pki"},
	"pkg/audit":     {"pkg/auth"},
	"pkg/admission": {"pkg/resource", "pkg/auth", "pkg/callout", "pkg/quota"},
	"pkg/registry":  {"pkg/resource", "pkg/auth", "pkg/admission", "pkg/storage", "pkg/callout"},
	"pkg/apiserver": {"pkg/resource", "pkg/auth", "pkg/audit", "pkg/admission", "pkg/registry", "pkg/storage", "pkg/metrics"},
	// The client side: client-go and each other's contracts only.
	"pkg/reconcile":   {},
	"pkg/controllers": {"pkg/reconcile", "pkg/auth/rbac", "pkg/auth/bootstraptoken", "pkg/pki", "pkg/quota", "pkg/volumebinding", "pkg/localpath", "pkg/attachment"},
	"pkg/scheduler":   {"pkg/reconcile", "pkg/placement", "pkg/podbinding", "pkg/volumebinding"},
	"pkg/kubelet":     {"pkg/localpath", "pkg/attachment", "pkg/pki"},
	"pkg/proxy":       {"pkg/network"},
	"pkg/dns":         {},
	// Local clusters and the user's tool.
	"pkg/cluster": {"pkg/network", "pkg/image", "pkg/pki", "pkg/nodeconfig", "pkg/localpath"},
	"pkg/ctl":     {"pkg/cluster", "pkg/image", "pkg/placement", "pkg/auth/bootstraptoken", "pkg/pki"},
	// What a role needs to be a process of its own.
	"pkg/component": {"pkg/auth", "pkg/pki", "pkg/reconcile"},
	// Composition.
	"pkg/controlplane": {"pkg/"},
	"pkg/testcluster":  {"pkg/"},
	"cmd":              {"pkg/"},
	"hack":             {"pkg/"},
	"manifests":        {"pkg/resource"},
	"e2e":              {"pkg/"},
	"bench":            {"pkg/"},
}

// owners are libraries that only some parts may import, with the reason.
var owners = []struct {
	library string
	parts   []string
	why     string
}{
	{"go.etcd.io/etcd", []string{"pkg/storage/etcd"}, "everything else goes through storage.Backend, which has a second implementation"},
	{"github.com/vishvananda/netlink", []string{"pkg/network", "pkg/proxy"}, "the kernel's network is changed in two places only"},
	{"github.com/google/nftables", []string{"pkg/network", "pkg/proxy"}, "the kernel's network is changed in two places only"},
	{"k8s.io/cri-api", []string{"pkg/kubelet", "hack/bench-node"}, "only the node agent talks to the container runtime, and the benchmark that compares it with bare calls"},
	{"github.com/container-storage-interface/spec", []string{"pkg/kubelet/csi", "pkg/kubelet/csifake"}, "one place makes the calls of CSI, in words of its own; the fake driver answers them"},
	{"k8s.io/kubelet", []string{"pkg/kubelet"}, "the registration of plugins and the services they offer are the node agent's"},
	{"github.com/containerd/containerd", []string{"pkg/image", "pkg/kubelet/imageview"}, "only images go around CRI"},
	{"github.com/google/go-containerregistry", []string{"pkg/image"}, "only images go around CRI"},
	{"github.com/miekg/dns", []string{"pkg/dns"}, "one DNS server"},
	{"github.com/robfig/cron", []string{"pkg/controllers/cronjob"}, "validation of schedules is in every program that reads objects, and does without it"},
	{"github.com/spf13/cobra", []string{"pkg/ctl", "cmd"}, "only programs have flags"},
	{"k8s.io/apiextensions-apiserver/pkg/apiserver", []string{"pkg/registry/custom"}, "schemas and rules are compiled in one place, which nothing but the API server links"},
	{"github.com/google/cel-go", []string{"pkg/admission/expression"}, "one place knows how expressions are compiled; schemas bring their own"},
	{"k8s.io/dynamic-resource-allocation", []string{"pkg/scheduler/devices", "pkg/admission/deviceselector"}, "it links CEL: the allocator in one place, what it may be asked in another"},
	{"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation", []string{"pkg/registry/custom"}, "it links CEL"},
}

// forbidden may not be linked at all, directly or through others.
var forbidden = map[string]string{
	"k8s.io/kubernetes":               "the project exists to do without it",
	"k8s.io/kubectl":                  "ctl is ours",
	"k8s.io/apiserver/pkg/server":     "the API server is ours",
	"k8s.io/apiserver/pkg/endpoints":  "the API server is ours",
	"k8s.io/apiserver/pkg/registry":   "the registry is ours",
	"k8s.io/apiserver/pkg/storage":    "storage and cache are ours",
	"k8s.io/apiserver/pkg/admission":  "the admission chain is ours; expressions are compiled with pkg/cel alone",
	"k8s.io/kube-openapi/cmd":         "the generator runs in a scratch module",
	"k8s.io/kube-openapi/pkg/handler": "OpenAPI is served as ready bytes",
}

// dragged are forbidden packages that come with libraries which the project
// chose: nothing of the project imports them, and the list does not grow
// unnoticed.
var dragged = map[string]string{
	"k8s.io/apiserver/pkg/endpoints/request":             "the validation of CustomResourceDefinitions checks webhook clients with util/webhook",
	"k8s.io/apiserver/pkg/server/egressselector":         "the same",
	"k8s.io/apiserver/pkg/server/egressselector/metrics": "the same",
}

const module = "coracle/"

// part is the entry of layers that a package belongs to.
func part(path string) (string, bool) {
	best := ""
	for p := range layers {
		if (path == p || strings.HasPrefix(path, p+"/")) && len(p) > len(best) {
			best = p
		}
	}
	return best, best != ""
}

func allowed(from, to string) bool {
	if to == from || strings.HasPrefix(to, from+"/") {
		return true
	}
	return slices.ContainsFunc(layers[from], func(prefix string) bool {
		return to == prefix || strings.HasPrefix(to, strings.TrimSuffix(prefix, "/")+"/")
	})
}

func TestArrowsPointDown(t *testing.T) {
	for _, p := range list(t, "./...") {
		path, ok := strings.CutPrefix(p.ImportPath, module)
		if !ok {
			continue // this package
		}
		from, ok := part(path)
		if !ok {
			t.Errorf("%s is in no layer: give it a place in layers and say in ARCHITECTURE.md what it is", path)
			continue
		}
		for _, imp := range p.Imports {
			if to, ok := strings.CutPrefix(imp, module); ok && !allowed(from, to) {
				t.Errorf("%s imports %s: %s may import %v only", path, to, from, layers[from])
			}
			for _, o := range owners {
				if (imp == o.library || strings.HasPrefix(imp, o.library+"/")) &&
					!slices.ContainsFunc(o.parts, func(prefix string) bool { return path == prefix || strings.HasPrefix(path, prefix+"/") }) {
					t.Errorf("%s imports %s, which is for %v: %s", path, imp, o.parts, o.why)
				}
			}
		}
	}
}

func TestNamesAndDepth(t *testing.T) {
	for _, p := range list(t, "./...") {
		path := strings.TrimPrefix(p.ImportPath, module)
		elements := strings.Split(path, "/")
		switch last := elements[len(elements)-1]; last {
		case "util", "utils", "common", "helper", "helpers", "base":
			t.Errorf("%s: name a package by its subject, not %q", path, last)
		}
		if elements[0] == "pkg" && len(elements) > 3 {
			t.Errorf("%s: packages are at most two levels below pkg/", path)
		}
	}
}

func TestForbiddenLibraries(t *testing.T) {
	for _, p := range list(t, "./cmd/...") {
		for _, dep := range p.Deps {
			if _, known := dragged[dep]; known {
				continue // no import of the project's own, see below
			}
			for library, why := range forbidden {
				if dep == library || strings.HasPrefix(dep, library+"/") {
					t.Errorf("%s links %s: %s", p.ImportPath, dep, why)
				}
			}
		}
	}
}

// TestForbiddenImports: what a library drags in is still not for the project.
func TestForbiddenImports(t *testing.T) {
	for _, p := range list(t, "./...") {
		for _, imp := range p.Imports {
			for library, why := range forbidden {
				if imp == library || strings.HasPrefix(imp, library+"/") {
					t.Errorf("%s imports %s: %s", p.ImportPath, imp, why)
				}
			}
		}
	}
}

// TestNodeAndUserProgramsStayLight keeps what only the API server needs out
// of the programs that run on nodes and on desks.
func TestNodeAndUserProgramsStayLight(t *testing.T) {
	for _, p := range list(t, "./cmd/kubelet", "./cmd/ctl") {
		for _, dep := range p.Deps {
			for _, library := range []string{"go.etcd.io/etcd", "github.com/google/cel-go", "k8s.io/apiextensions-apiserver/pkg/apiserver", module + "pkg/storage", module + "pkg/registry", module + "pkg/apiserver"} {
				if dep == library || strings.HasPrefix(dep, library+"/") {
					t.Errorf("%s links %s, which is the API server's", p.ImportPath, dep)
				}
			}
		}
	}
}

// TestBenchmarkComparesTheSameVersions: the benchmark is a module of its own,
// which no package of this one belongs to, and its reference and its etcd are
// of the versions that the project links.
func TestBenchmarkComparesTheSameVersions(t *testing.T) {
	ours, bench := required(t, "go.mod"), required(t, "hack/bench/go.mod")
	for _, library := range []string{"k8s.io/api", "k8s.io/apimachinery", "k8s.io/client-go", "go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/client/v3"} {
		if ours[library] == "" || ours[library] != bench[library] {
			t.Errorf("hack/bench links %s %s, the project %s: run go get there", library, bench[library], ours[library])
		}
	}
	if v := bench["k8s.io/apiextensions-apiserver"]; v != ours["k8s.io/api"] {
		t.Errorf("the reference is k8s.io/apiextensions-apiserver %s, want %s", v, ours["k8s.io/api"])
	}
	for _, p := range list(t, "./hack/...") {
		if strings.HasPrefix(p.ImportPath, module+"hack/bench/") {
			t.Errorf("%s is a package of the project", p.ImportPath)
		}
	}
}

// required are the versions that a go.mod names.
func required(t *testing.T, file string) map[string]string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "mod", "edit", "-json", file).Output()
	if err != nil {
		t.Fatalf("read %s: %v", file, err)
	}
	var mod struct {
		Require []struct{ Path, Version string }
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatalf("read %s: %v", file, err)
	}
	versions := map[string]string{}
	for _, r := range mod.Require {
		versions[r.Path] = r.Version
	}
	return versions
}
