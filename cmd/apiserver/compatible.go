package main

import (
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"coracle/pkg/resource"
)

// compatible are flags of kube-apiserver that this server takes, since test
// environments and manifests give them, and that change nothing of what it does.
// Who asks by them for something else than it does is told so in the log.
type compatible struct {
	gates, groups []string
}

// ignored are flags that concern what this server does not have, or decides
// itself, and which no client can tell.
var ignored = []struct{ name, value, why string }{
	{"v", "0", "there is one level of log messages"},
	{"vmodule", "", "there is one level of log messages"},
	{"logging-format", "text", "log messages are lines of text"},
	{"watch-cache", "true", "everything is cached"},
	{"watch-cache-sizes", "", "caches are bounded by bytes"},
	{"default-watch-cache-size", "100", "caches are bounded by bytes"},
	{"storage-media-type", "application/vnd.kubernetes.protobuf", "objects are stored as protobuf, custom ones as JSON"},
	{"delete-collection-workers", "1", "collections are deleted as fast as the store allows"},
	{"endpoint-reconciler-type", "lease", "the endpoints of the kubernetes Service follow leases"},
	{"kubelet-preferred-address-types", "", "agents are reached at their nodes' internal addresses"},
}

func (c *compatible) addFlags(f *pflag.FlagSet) {
	f.StringSliceVar(&c.gates, "feature-gates", nil, "accepted for compatibility, as NAME=true or NAME=false: the features of this server are fixed")
	f.StringSliceVar(&c.groups, "runtime-config", nil, "accepted for compatibility, as GROUP/VERSION=true or =false: what this server serves is fixed")
	for _, i := range ignored {
		if i.value == "true" {
			f.Bool(i.name, true, "accepted for compatibility: "+i.why)
			continue
		}
		short := ""
		if len(i.name) == 1 {
			short = i.name
		}
		f.StringP(i.name, short, i.value, "accepted for compatibility: "+i.why)
	}
}

// check refuses what cannot be read and tells the log what is asked for in vain.
func (c *compatible) check(log *slog.Logger) error {
	for _, gate := range c.gates {
		name, value, ok := strings.Cut(gate, "=")
		if _, err := strconv.ParseBool(value); !ok || err != nil {
			return fmt.Errorf("--feature-gates: %q is not NAME=true or NAME=false", gate)
		}
		log.Warn("The features of this server are fixed: a feature gate changes nothing", "gate", name, "value", value)
	}
	for _, entry := range c.groups {
		name, value, ok := strings.Cut(entry, "=")
		if !ok || value == "" {
			value = "true"
		}
		on, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("--runtime-config: %q is not GROUP/VERSION=true or GROUP/VERSION=false", entry)
		}
		switch served := serves(name); {
		case on && !served:
			log.Warn("What this server serves is fixed: this is not served", "name", name)
		case !on && served:
			log.Warn("What this server serves is fixed: this is served all the same", "name", name)
		}
	}
	return nil
}

// serves says whether a name of --runtime-config is served: a group version, a
// resource of one, or with api/ before it a sort of them. Of api/alpha and
// api/beta hardly anything is.
func serves(name string) bool {
	if sort, ok := strings.CutPrefix(name, "api/"); ok {
		return sort == "all" || sort == "ga"
	}
	group, rest, ok := strings.Cut(name, "/")
	if !ok {
		group, rest = "", name
	}
	version, plural, _ := strings.Cut(rest, "/")
	return slices.ContainsFunc(resource.Builtin().All(), func(r *resource.Resource) bool {
		return r.Group == group && r.Version == version && (plural == "" || r.Plural == plural)
	})
}
