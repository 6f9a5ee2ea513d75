package coracle

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// call is a call of a function of another package, as the source has it.
type call struct {
	file string // its path, with slashes
	name string // "net.Listen"
	text string // what is passed
}

// calls are all in the programs and packages of the project, tests left out.
func calls(t *testing.T) []call {
	t.Helper()
	var out []call
	files := token.NewFileSet()
	for _, root := range []string{"cmd", "pkg"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if c, ok := n.(*ast.CallExpr); ok {
					out = append(out, call{filepath.ToSlash(path), spelled(c.Fun), spelledAll(c.Args)})
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(out) < 10_000 {
		t.Fatalf("only %d calls were found", len(out))
	}
	return out
}

// spelled is an expression's names, with points between them.
func spelled(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return spelled(e.X) + "." + e.Sel.Name
	case *ast.BinaryExpr:
		return spelled(e.X) + e.Op.String() + spelled(e.Y)
	case *ast.UnaryExpr:
		return spelled(e.X)
	case *ast.CallExpr:
		return spelled(e.Fun) + "(" + spelledAll(e.Args) + ")"
	case *ast.CompositeLit:
		return spelled(e.Type) + "{" + spelledAll(e.Elts) + "}"
	case *ast.KeyValueExpr:
		return spelled(e.Key) + ":" + spelled(e.Value)
	case *ast.ParenExpr:
		return spelled(e.X)
	}
	return ""
}

func spelledAll(list []ast.Expr) string {
	parts := make([]string, len(list))
	for i, e := range list {
		parts[i] = spelled(e)
	}
	return strings.Join(parts, ",")
}

// only wants that functions are called in some files alone, with the reason,
// and that no reason is left over.
func only(t *testing.T, all []call, is func(name string) bool, why map[string]string) {
	t.Helper()
	used := map[string]bool{}
	for _, c := range all {
		if !is(c.name) {
			continue
		}
		used[c.file] = true
		if why[c.file] == "" {
			t.Errorf("%s calls %s(%s): if that is safe, say here why", c.file, c.name, c.text)
		}
	}
	for file := range why {
		if !used[file] {
			t.Errorf("%s calls nothing of the kind: take it out of the list", file)
		}
	}
}

func oneOf(names ...string) func(string) bool {
	return func(name string) bool { return slices.Contains(names, name) }
}

// TestListeners: every port that a program opens is known, with who may talk to
// it. A new one needs a test of that of its own.
func TestListeners(t *testing.T) {
	only(t, calls(t), func(name string) bool {
		_, method, _ := strings.Cut(name, ".")
		last := name[strings.LastIndexByte(name, '.')+1:]
		return slices.Contains([]string{"Listen", "ListenPacket", "ListenTCP", "ListenUDP", "ListenUnix", "ListenAndServe", "ListenAndServeTLS"}, last) && method != "" ||
			name == ".Listen"
	}, map[string]string{
		"pkg/controlplane/serve.go":     "the API: TLS, authenticated and authorized (TestAnonymous)",
		"pkg/kubelet/server/server.go":  "the agent: TLS, authenticated and authorized but for /healthz (TestEveryRouteIsGuarded)",
		"pkg/kubelet/csifake/driver.go": "a driver for tests, which no program links: unix sockets in folders of the test",
		"pkg/proxy/health.go":           "whether a Service has endpoints here, for load balancers, as its spec asks for; it says no more (TestHealthServer)",
		"pkg/network/relay.go":          "host ports that a pod has asked for, passed on to the pod (TestHostPortTraffic)",
		"pkg/dns/server.go":             "the cluster's DNS, on its own address (TestServerFollowsTheCluster)",
		"pkg/cluster/preflight.go":      "closed at once: whether a port is free",
		"pkg/component/server.go":       "health for everybody; metrics and the explain API authenticated and authorized (TestPortIsGuarded)",
	})
}

// TestPrograms: the agent, the controllers and the API server start no program,
// so that nothing of an object can become one (CVE-2024-10220), and what the
// user's tool starts is named here.
func TestPrograms(t *testing.T) {
	only(t, calls(t), oneOf("exec.Command", "exec.CommandContext", "os.StartProcess", "syscall.ForkExec", "syscall.Exec", "unix.Exec"), map[string]string{
		"pkg/image/busybox.go":        "the machine's busybox tells its applets, on the user's desk",
		"pkg/ctl/edit.go":             "the user's editor",
		"pkg/cluster/wire.go":         "nft and ip on the user's machine, with names that the tool made",
		"pkg/cluster/controlplane.go": "the API server of a local cluster",
		"pkg/cluster/noderun.go":      "containerd and the agent of a local node",
		"pkg/cluster/proc.go":         "the same",
		"pkg/cluster/simulated.go":    "the agent of simulated nodes",
	})
}

// TestEnvironment: no component takes anything secret from its environment,
// which is shown in many places.
func TestEnvironment(t *testing.T) {
	only(t, calls(t), oneOf("os.Getenv", "os.LookupEnv", "os.Environ", "syscall.Getenv"), map[string]string{
		"pkg/ctl/edit.go":       "the user's editor",
		"pkg/ctl/createcore.go": "values that the user asks to be taken from there",
		"cmd/apiserver/heap.go": "whether the collector was tuned",
	})
}

// TestControllersDialNobody: a controller talks to the API server, by the client
// it was given. An address that it read in an object, it cannot dial
// (CVE-2020-8555).
func TestControllersDialNobody(t *testing.T) {
	banned := []string{"net", "net/http", "net/rpc", "crypto/tls", "os/exec", "google.golang.org/grpc", "golang.org/x/net/websocket"}
	for _, p := range list(t, "./pkg/controllers/...", "./pkg/scheduler/...", "./pkg/reconcile/...") {
		for _, imp := range p.Imports {
			if slices.Contains(banned, imp) {
				t.Errorf("%s imports %s: controllers and scheduler reach nothing but the API", p.ImportPath, imp)
			}
		}
	}
}

// TestDescriptorsStay: what the programs open is closed in programs that they
// start, and in containers (CVE-2024-21626). What package os opens always is.
func TestDescriptorsStay(t *testing.T) {
	found := 0
	for _, c := range calls(t) {
		flags := ""
		switch c.name {
		case "unix.Open", "unix.Openat", "syscall.Open", "syscall.Openat", "unix.Socket", "unix.EpollCreate1", "unix.InotifyInit1", "unix.Pipe2", "unix.MemfdCreate",
			"unix.Dup3", "unix.Fsopen", "unix.OpenTree", "unix.Fsmount":
			flags = "CLOEXEC"
		case "unix.FcntlInt":
			if strings.Contains(c.text, "F_DUPFD") {
				flags = "CLOEXEC"
			}
		case "unix.Dup", "unix.Dup2", "syscall.Dup", "syscall.Dup2", "unix.Pipe", "syscall.Pipe", "unix.EpollCreate", "unix.InotifyInit", "syscall.Socket":
			t.Errorf("%s calls %s, which cannot say that a descriptor stays here", c.file, c.name)
		}
		if flags != "" {
			found++
			if !strings.Contains(c.text, flags) {
				t.Errorf("%s calls %s(%s) without %s", c.file, c.name, c.text, flags)
			}
		}
	}
	if found < 8 {
		t.Errorf("only %d descriptors were found", found)
	}
	hows := 0
	for _, lit := range literals(t, "unix.OpenHow") {
		hows++
		if !strings.Contains(lit.text, "CLOEXEC") {
			t.Errorf("%s has a unix.OpenHow{%s} without O_CLOEXEC", lit.file, lit.text)
		}
	}
	if hows < 4 {
		t.Errorf("only %d of openat2 were found", hows)
	}
}

// literals are the composite literals of a type.
func literals(t *testing.T, typ string) (out []call) {
	t.Helper()
	files := token.NewFileSet()
	err := filepath.WalkDir("pkg", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if lit, ok := n.(*ast.CompositeLit); ok && spelled(lit.Type) == typ {
				out = append(out, call{filepath.ToSlash(path), typ, spelledAll(lit.Elts)})
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestSecretsAreComparedWhole: where a secret that somebody shows is compared
// with the one that is known, the time tells nothing of it.
func TestSecretsAreComparedWhole(t *testing.T) {
	found := map[string]bool{}
	for _, c := range calls(t) {
		if c.name == "subtle.ConstantTimeCompare" || c.name == "hmac.Equal" {
			found[c.file] = true
		}
	}
	if !found["pkg/auth/bootstrap.go"] {
		t.Error("pkg/auth/bootstrap.go compares tokens in another way")
	}
}
