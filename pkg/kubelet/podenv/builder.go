package podenv

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// builder collects variables in the order of their first appearance.
type builder struct {
	in    Input
	list  []*runtimeapi.KeyValue
	index map[string]int // position in list by name
	// links are the service variables: visible to expansion from the start,
	// but appended last and only under names that nothing else took.
	links    []*runtimeapi.KeyValue
	linkVars map[string]string
}

func newBuilder(in Input) *builder {
	links := serviceVars(in.Pod, in.Services)
	return &builder{in: in, index: make(map[string]int), links: links, linkVars: asMap(links)}
}

func (b *builder) set(name, value string) {
	if i, ok := b.index[name]; ok {
		b.list[i].Value = []byte(value)
		return
	}
	b.index[name] = len(b.list)
	b.list = append(b.list, &runtimeapi.KeyValue{Key: name, Value: []byte(value)})
}

func (b *builder) lookup(name string) (string, bool) {
	if i, ok := b.index[name]; ok {
		return string(b.list[i].Value), true
	}
	v, ok := b.linkVars[name]
	return v, ok
}

func (b *builder) finish() []*runtimeapi.KeyValue {
	out := b.list
	for _, kv := range b.links {
		if _, taken := b.index[kv.Key]; !taken {
			out = append(out, kv)
		}
	}
	return out
}

// addFrom takes all keys of a ConfigMap or Secret.
func (b *builder) addFrom(src *corev1.EnvFromSource) error {
	switch {
	case src.ConfigMapRef != nil:
		ref := src.ConfigMapRef
		cm := b.in.ConfigMaps[ref.Name]
		if cm == nil {
			return b.absent("configmap", ref.Name, "", ref.Optional)
		}
		for _, k := range slices.Sorted(maps.Keys(cm.Data)) {
			b.set(src.Prefix+k, cm.Data[k])
		}
	case src.SecretRef != nil:
		ref := src.SecretRef
		secret := b.in.Secrets[ref.Name]
		if secret == nil {
			return b.absent("secret", ref.Name, "", ref.Optional)
		}
		for _, k := range slices.Sorted(maps.Keys(secret.Data)) {
			b.set(src.Prefix+k, string(secret.Data[k]))
		}
	}
	return nil
}

// addVar adds one variable of env. One whose optional source is missing is not
// set at all, which leaves an earlier value of the same name in place.
func (b *builder) addVar(v *corev1.EnvVar) error {
	if v.Value != "" || v.ValueFrom == nil {
		b.set(v.Name, expand(v.Value, b.lookup))
		return nil
	}
	value, ok, err := b.resolve(v.ValueFrom)
	if err != nil {
		return fmt.Errorf("environment variable %s: %w", v.Name, err)
	}
	if ok {
		b.set(v.Name, value)
	}
	return nil
}

func (b *builder) resolve(src *corev1.EnvVarSource) (value string, ok bool, err error) {
	switch {
	case src.FieldRef != nil:
		value, err = Field(b.in.Pod, Addresses{PodIPs: b.in.PodIPs, HostIPs: b.in.HostIPs}, src.FieldRef.FieldPath)
	case src.ResourceFieldRef != nil:
		value, err = ContainerResource(b.in.Pod, b.in.Container, src.ResourceFieldRef, b.in.NodeAllocatable)
	case src.ConfigMapKeyRef != nil:
		return b.fromConfigMap(src.ConfigMapKeyRef)
	case src.SecretKeyRef != nil:
		return b.fromSecret(src.SecretKeyRef)
	case src.FileKeyRef != nil:
		return b.fromFile(src.FileKeyRef)
	default:
		return "", false, errors.New("its source is of a kind that this node does not know")
	}
	return value, err == nil, err
}

func (b *builder) fromConfigMap(ref *corev1.ConfigMapKeySelector) (string, bool, error) {
	cm := b.in.ConfigMaps[ref.Name]
	if cm == nil {
		return "", false, b.absent("configmap", ref.Name, "", ref.Optional)
	}
	if v, ok := cm.Data[ref.Key]; ok {
		return v, true, nil
	}
	return "", false, b.absent("configmap", ref.Name, ref.Key, ref.Optional)
}

func (b *builder) fromSecret(ref *corev1.SecretKeySelector) (string, bool, error) {
	secret := b.in.Secrets[ref.Name]
	if secret == nil {
		return "", false, b.absent("secret", ref.Name, "", ref.Optional)
	}
	if v, ok := secret.Data[ref.Key]; ok {
		return string(v), true, nil
	}
	return "", false, b.absent("secret", ref.Name, ref.Key, ref.Optional)
}

func (b *builder) fromFile(ref *corev1.FileKeySelector) (string, bool, error) {
	if b.in.EnvFile == nil {
		return "", false, errors.New("fileKeyRef is not available here")
	}
	optional := ref.Optional != nil && *ref.Optional
	data, err := b.in.EnvFile(ref.VolumeName, ref.Path)
	if errors.Is(err, fs.ErrNotExist) && optional {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("reading env file %q of volume %q: %w", ref.Path, ref.VolumeName, err)
	}
	value, found, err := envFileValue(data, ref.Key)
	if err != nil {
		return "", false, fmt.Errorf("env file %q of volume %q: %w", ref.Path, ref.VolumeName, err)
	}
	if !found && !optional {
		return "", false, fmt.Errorf("env file %q of volume %q has no key %q", ref.Path, ref.VolumeName, ref.Key)
	}
	return value, found, nil
}

// absent is nil for an optional source, else the error that names what is missing.
func (b *builder) absent(kind, name, key string, optional *bool) error {
	if optional != nil && *optional {
		return nil
	}
	if key == "" {
		return fmt.Errorf("%s %q not found", kind, name)
	}
	return fmt.Errorf("couldn't find key %s in %s %s/%s", key, kind, b.in.Pod.Namespace, name)
}
