package ctl

import (
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

// Field managers. What apply owns is told apart from what the other verbs
// set, and what create made is taken over by apply.
const (
	managerApply  = "ctl"
	managerCreate = "ctl-create"
	managerEdit   = "ctl-edit"
)

// wrapConfig sets what all requests of this run share.
func (t *tool) wrapConfig(c *rest.Config) *rest.Config {
	c.UserAgent = "ctl"
	c.QPS, c.Burst = 50, 300
	c.WarningHandler = warnings{t}
	return c
}

// warnings prints the server's warnings.
type warnings struct{ t *tool }

// HandleWarningHeader is called for each warning of an answer.
func (w warnings) HandleWarningHeader(code int, _ string, text string) {
	if code == 299 && text != "" {
		fmt.Fprintln(w.t.Err, "Warning:", escape(text))
	}
}

// client returns a typed client. Writes go as protobuf.
func (t *tool) client() (kubernetes.Interface, error) {
	cfg, err := t.config()
	if err != nil {
		return nil, err
	}
	cfg.ContentType = runtime.ContentTypeProtobuf
	cfg.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	return kubernetes.NewForConfig(cfg)
}

// config is a client configuration of the caller's own.
func (t *tool) config() (*rest.Config, error) {
	cfg, err := t.flags.ToRESTConfig()
	if err != nil {
		return nil, err
	}
	return rest.CopyConfig(cfg), nil
}

func (t *tool) dynamic() (dynamic.Interface, error) {
	cfg, err := t.config()
	if err != nil {
		return nil, err
	}
	return dynamic.NewForConfig(cfg)
}

// namespace is the one of the command line, else the context's, else default.
func (t *tool) namespace() (ns string, explicit bool, err error) {
	return t.flags.ToRawKubeConfigLoader().Namespace()
}

// builder finds objects, untyped, in the namespace of the command line.
func (t *tool) builder(allNamespaces bool) (*resource.Builder, error) {
	ns, explicit, err := t.namespace()
	if err != nil {
		return nil, err
	}
	b := resource.NewBuilder(t.flags).Unstructured().ContinueOnError().
		NamespaceParam(ns).DefaultNamespace().AllNamespaces(allNamespaces)
	if explicit {
		b = b.RequireNamespace()
	}
	return b, nil
}

// files are the flags that name files.
type files struct {
	names     []string
	recursive bool
	kustomize string
}

// add adds the flags; what says what is done with the files.
func (o *files) add(cmd *cobra.Command, what string) {
	f := cmd.Flags()
	f.StringSliceVarP(&o.names, "filename", "f", nil, "file, folder, URL or - (standard input) "+what)
	f.BoolVarP(&o.recursive, "recursive", "R", false, "take folders with all folders in them")
	f.StringVarP(&o.kustomize, "kustomize", "k", "", "folder with a kustomization.yaml "+what)
	_ = cmd.RegisterFlagCompletionFunc("filename", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return []string{"yaml", "yml", "json"}, cobra.ShellCompDirectiveFilterFileExt
	})
}

func (o *files) given() bool { return len(o.names) > 0 || o.kustomize != "" }

func (o *files) options() *resource.FilenameOptions {
	return &resource.FilenameOptions{Filenames: o.names, Kustomize: o.kustomize, Recursive: o.recursive}
}

// addFiles makes the builder read the files. Objects that name another
// namespace than an explicit -n are an error.
func (t *tool) addFiles(b *resource.Builder, o *files) (*resource.Builder, error) {
	_, explicit, err := t.namespace()
	if err != nil {
		return nil, err
	}
	for _, name := range o.names {
		if name == "-" {
			// The builder's own "-" would read the process's input.
			names := make([]string, 0, len(o.names))
			for _, n := range o.names {
				if n != "-" {
					names = append(names, n)
				}
			}
			b = b.Stream(t.In, "standard input")
			if len(names) == 0 && o.kustomize == "" {
				return b, nil
			}
			return b.FilenameParam(explicit, &resource.FilenameOptions{Filenames: names, Kustomize: o.kustomize, Recursive: o.recursive}), nil
		}
	}
	return b.FilenameParam(explicit, o.options()), nil
}

// typed converts an untyped object into its Go type. It fails for kinds that
// this program does not know.
func typed(obj runtime.Object) (runtime.Object, error) {
	u, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return obj, nil
	}
	out, err := scheme.Scheme.New(u.GroupVersionKind())
	if err != nil {
		return nil, err
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, out); err != nil {
		return nil, fmt.Errorf("read %s/%s: %w", u.GetKind(), u.GetName(), err)
	}
	return out, nil
}
