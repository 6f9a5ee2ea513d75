// Command openapi makes the catalog of API types that the API server's
// OpenAPI documents consist of:
//
//	go run ./hack/openapi
//
// It runs kube-openapi's generator over k8s.io/api and its relatives, in the
// versions of this module's go.mod, within a scratch module in a temporary
// folder. The generated Go is run once to print the definitions and then
// thrown away. The same versions give the same catalog. It needs the Go module
// proxy, or a module cache that has all of it.
package main

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"coracle/pkg/apiserver/openapi"
)

//go:embed scratch/*.txt
var scratch embed.FS

// apiModules have the version of k8s.io/api.
var apiModules = []string{
	"k8s.io/api", "k8s.io/apimachinery", "k8s.io/client-go",
	"k8s.io/apiextensions-apiserver", "k8s.io/kube-aggregator", "k8s.io/metrics",
}

// generator is kube-openapi's.
const generator = "k8s.io/kube-openapi/cmd/openapi-gen"

func main() {
	out := flag.String("out", "pkg/apiserver/openapi/catalog.gob.gz", "file to write")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *out); err != nil {
		fmt.Fprintln(os.Stderr, "openapi:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out string) error {
	dir, err := os.MkdirTemp("", "coracle-openapi-")
	if err != nil {
		return fmt.Errorf("make a folder for the scratch module: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := prepare(ctx, dir); err != nil {
		return err
	}
	packages, err := taggedPackages(ctx, dir)
	if err != nil {
		return err
	}
	args := []string{
		"run", generator, "--go-header-file", "header.txt", "--report-filename", "report.txt",
		"--output-dir", "generated", "--output-pkg", "scratch/generated", "--output-file", "openapi.go",
		// Model names come from methods that the packages already have.
		"--output-model-name-file", "zz_generated.model_name.go",
	}
	for _, p := range packages {
		args = append(args, "--readonly-pkg", p)
	}
	if _, err := goCommand(ctx, dir, append(args, packages...)...); err != nil {
		return err
	}
	dump, err := goCommand(ctx, dir, "run", ".")
	if err != nil {
		return err
	}
	return write(dump, out)
}

// prepare writes the scratch module and resolves its dependencies.
func prepare(ctx context.Context, dir string) error {
	version, err := moduleVersion(ctx, "k8s.io/api")
	if err != nil {
		return err
	}
	kubeOpenAPI, err := moduleVersion(ctx, "k8s.io/kube-openapi")
	if err != nil {
		return err
	}
	mod := "module scratch\n\ngo 1.26\n\nrequire k8s.io/kube-openapi " + kubeOpenAPI + "\n"
	for _, m := range apiModules {
		mod += "require " + m + " " + version + "\n"
	}
	dump, err := scratch.ReadFile("scratch/dump.go.txt")
	if err != nil {
		return err
	}
	tools := "//go:build tools\n\npackage main\n\nimport _ \"" + generator + "/args\"\n"
	placeholder := "package generated\n\nimport _ \"k8s.io/kube-openapi/pkg/generators\"\n"
	for name, text := range map[string]string{
		"go.mod": mod, "dump.go": string(dump), "tools.go": tools, "header.txt": "", "generated/openapi.go": placeholder,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("write the scratch module: %w", err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return fmt.Errorf("write the scratch module: %w", err)
		}
	}
	_, err = goCommand(ctx, dir, "mod", "tidy")
	return err
}

func moduleVersion(ctx context.Context, module string) (string, error) {
	v, err := goCommand(ctx, "", "list", "-m", "-f", "{{.Version}}", module)
	return strings.TrimSpace(string(v)), err
}

// taggedPackages are the packages that ask for OpenAPI definitions.
func taggedPackages(ctx context.Context, dir string) ([]string, error) {
	patterns := []string{"list", "-f", "{{.ImportPath}} {{.Dir}}"}
	for _, m := range apiModules {
		if m != "k8s.io/client-go" {
			patterns = append(patterns, m+"/...")
		}
	}
	list, err := goCommand(ctx, dir, patterns...)
	if err != nil {
		return nil, err
	}
	var out []string
	for line := range strings.Lines(string(list)) {
		path, folder, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.Contains(path, "testapigroup") {
			continue
		}
		tagged, err := hasTag(folder)
		if err != nil {
			return nil, err
		}
		if tagged {
			out = append(out, path)
		}
	}
	slices.Sort(out)
	return out, nil
}

func hasTag(folder string) (bool, error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		return false, err
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return false, fmt.Errorf("look for OpenAPI tags: %w", err)
		}
		if bytes.Contains(text, []byte("+k8s:openapi-gen=true")) {
			return true, nil
		}
	}
	return false, nil
}

func goCommand(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if dir != "" {
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
	}
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s", args[0], err, stderr.Bytes())
	}
	return stdout.Bytes(), nil
}

// write makes the catalog of what the scratch program printed.
func write(dump []byte, out string) error {
	var defs []openapi.Definition
	if err := json.Unmarshal(dump, &defs); err != nil {
		return fmt.Errorf("read the generated definitions: %w", err)
	}
	keep := served(defs)
	defs = slices.DeleteFunc(defs, func(d openapi.Definition) bool { return !keep[d.Name] })
	var buf bytes.Buffer
	if err := openapi.WriteCatalog(&buf, defs); err != nil {
		return err
	}
	if err := os.WriteFile(out, buf.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write the catalog: %w", err)
	}
	fmt.Printf("%s: %d definitions, %d bytes\n", out, len(defs), buf.Len())
	return nil
}

// served are the definitions without those of alpha versions, which are never
// served, unless another version refers to them.
func served(defs []openapi.Definition) map[string]bool {
	refs := map[string][]string{}
	keep := map[string]bool{}
	var todo []string
	for _, d := range defs {
		refs[d.Name] = d.Refs
		if !strings.Contains(d.Name, "alpha") {
			todo = append(todo, d.Name)
		}
	}
	for len(todo) > 0 {
		name := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if !keep[name] {
			keep[name] = true
			todo = append(todo, refs[name]...)
		}
	}
	return keep
}
