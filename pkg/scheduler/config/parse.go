package config

import (
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	configv1 "k8s.io/kube-scheduler/config/v1"
	sigsjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// maxFile bounds a configuration; the longest sensible one is a few KiB.
const maxFile = 1 << 20

const kind = "KubeSchedulerConfiguration"

// Parse reads a KubeSchedulerConfiguration in YAML or JSON. The warnings say
// which fields are accepted without effect.
func Parse(data []byte) (cfg Config, warnings []string, err error) {
	if len(data) > maxFile {
		return Config{}, nil, fmt.Errorf("the configuration has %d bytes: at most %d are read", len(data), maxFile)
	}
	doc, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return Config{}, nil, fmt.Errorf("read the configuration as YAML: %w", err)
	}
	var file configv1.KubeSchedulerConfiguration
	if err := checkType(doc); err != nil {
		return Config{}, nil, err
	}
	if err := strict(doc, &file); err != nil {
		return Config{}, nil, err
	}
	cfg = Config{InitialBackoff: defaultInitialBackoff, MaxBackoff: defaultMaxBackoff}
	if err := cfg.common(&file); err != nil {
		return Config{}, nil, err
	}
	if err := cfg.profiles(file.Profiles); err != nil {
		return Config{}, nil, err
	}
	return cfg, ineffective(&file), nil
}

// strict decodes JSON and refuses fields that the type does not have.
func strict(doc []byte, into any) error {
	unknown, err := sigsjson.UnmarshalStrict(doc, into)
	if err != nil {
		return err
	}
	return errors.Join(unknown...)
}

func checkType(doc []byte) error {
	var t metav1.TypeMeta
	if err := sigsjson.UnmarshalCaseSensitivePreserveInts(doc, &t); err != nil {
		return fmt.Errorf("the configuration is not an object: %w", err)
	}
	if want := configv1.SchemeGroupVersion.String(); t.APIVersion != want {
		return fmt.Errorf("apiVersion: %q is not read: write %s", t.APIVersion, want)
	}
	if t.Kind != kind {
		return fmt.Errorf("kind: %q is not read: write %s", t.Kind, kind)
	}
	return nil
}

// common takes over and checks what is not about a profile.
func (c *Config) common(file *configv1.KubeSchedulerConfiguration) error {
	if len(file.Extenders) > 0 {
		return errors.New("extenders: this scheduler calls no extenders: remove them, and say what they did with node affinity, taints or a scheduler of your own (spec.schedulerName)")
	}
	if p := file.Parallelism; p != nil && *p <= 0 {
		return fmt.Errorf("parallelism: %d must be greater than 0", *p)
	}
	if err := percentage("", file.PercentageOfNodesToScore); err != nil {
		return err
	}
	for _, b := range []struct {
		name  string
		given *int64
		into  *time.Duration
	}{
		{"podInitialBackoffSeconds", file.PodInitialBackoffSeconds, &c.InitialBackoff},
		{"podMaxBackoffSeconds", file.PodMaxBackoffSeconds, &c.MaxBackoff},
	} {
		if b.given == nil {
			continue
		}
		const longest = int64(24 * time.Hour / time.Second)
		if *b.given <= 0 || *b.given > longest {
			return fmt.Errorf("%s: %d must be greater than 0 and at most %d", b.name, *b.given, longest)
		}
		*b.into = time.Duration(*b.given) * time.Second
	}
	if c.MaxBackoff < c.InitialBackoff {
		return fmt.Errorf("podMaxBackoffSeconds: %d must be at least podInitialBackoffSeconds, which is %d", c.MaxBackoff/time.Second, c.InitialBackoff/time.Second)
	}
	return nil
}

func percentage(at string, p *int32) error {
	if p != nil && (*p < 0 || *p > 100) {
		return fmt.Errorf("%spercentageOfNodesToScore: %d must be between 0 and 100", at, *p)
	}
	return nil
}

// profiles reads the profiles; without any there is the default one.
func (c *Config) profiles(given []configv1.KubeSchedulerProfile) error {
	if len(given) == 0 {
		given = []configv1.KubeSchedulerProfile{{}}
	}
	for i := range given {
		at, name := fmt.Sprintf("profiles[%d].", i), ""
		switch {
		case given[i].SchedulerName != nil:
			name = *given[i].SchedulerName
		case len(given) == 1:
			name = corev1.DefaultSchedulerName
		}
		if name == "" {
			return fmt.Errorf("%sschedulerName: each of several profiles needs a name, by which pods ask for it in spec.schedulerName", at)
		}
		if c.Profile(name) != nil {
			return fmt.Errorf("%sschedulerName: %q is also the name of another profile: give each its own", at, name)
		}
		if err := percentage(at, given[i].PercentageOfNodesToScore); err != nil {
			return err
		}
		p, err := newProfile(&given[i], name)
		if err != nil {
			return fmt.Errorf("%s%w", at, err)
		}
		c.Profiles = append(c.Profiles, p)
	}
	return nil
}

func newProfile(given *configv1.KubeSchedulerProfile, name string) (Profile, error) {
	p := Profile{SchedulerName: name}
	if err := p.choosePlugins(given.Plugins); err != nil {
		return Profile{}, err
	}
	return p, p.readArgs(given.PluginConfig)
}

// ineffective says what was given and does nothing.
func ineffective(file *configv1.KubeSchedulerConfiguration) []string {
	var out []string
	scored := file.PercentageOfNodesToScore != nil
	for i := range file.Profiles {
		scored = scored || file.Profiles[i].PercentageOfNodesToScore != nil
	}
	if scored {
		out = append(out, "percentageOfNodesToScore has no effect: every node that can take a pod is scored, since alike pods share what was found out")
	}
	if file.Parallelism != nil {
		out = append(out, "parallelism has no effect: one goroutine decides")
	}
	if file.ClientConnection.Kubeconfig != "" {
		out = append(out, "clientConnection has no effect: the scheduler has the connection of its process")
	}
	return out
}
