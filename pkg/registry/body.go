package registry

import (
	"fmt"
	"net/http"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	jsonserializer "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"coracle/pkg/registry/jsonvalue"
	"coracle/pkg/resource"
)

// Validation is the fieldValidation directive of a request (KEP-2885).
type Validation string

// The directives. The empty one means Warn.
const (
	Ignore Validation = "Ignore"
	Warn   Validation = "Warn"
	Strict Validation = "Strict"
)

// MediaType is the encoding of a body.
type MediaType string

// The encodings that bodies and responses may have.
const (
	JSON     MediaType = "application/json"
	YAML     MediaType = "application/yaml"
	Protobuf MediaType = "application/vnd.kubernetes.protobuf"
)

// Decoder decodes request bodies into types of one scheme. It is made once.
type Decoder struct {
	scheme *runtime.Scheme
	// strict and lenient find the kind of a body without decoding it twice.
	strict, lenient map[MediaType]runtime.Serializer
	// exact are the library's own, which explain what is wrong with a body.
	exact map[MediaType]runtime.Serializer
	// shapes are the types of protobuf bodies that were measured.
	shapes shapes
	// plans are of the types that plain bodies are decoded into.
	plans sync.Map // reflect.Type to *plainjson.Plan, nil where there is none
}

// NewDecoder makes a Decoder for the types of scheme.
func NewDecoder(scheme *runtime.Scheme) *Decoder {
	serializers := func(kinds jsonserializer.MetaFactory, strict bool) map[MediaType]runtime.Serializer {
		return map[MediaType]runtime.Serializer{
			JSON:     jsonserializer.NewSerializerWithOptions(kinds, scheme, scheme, jsonserializer.SerializerOptions{Strict: strict}),
			YAML:     jsonserializer.NewSerializerWithOptions(kinds, scheme, scheme, jsonserializer.SerializerOptions{Yaml: true, Strict: strict}),
			Protobuf: protobuf.NewSerializer(scheme, scheme),
		}
	}
	return &Decoder{
		scheme: scheme,
		strict: serializers(quickKind{}, true), lenient: serializers(quickKind{}, false),
		exact: serializers(jsonserializer.DefaultMetaFactory, false),
	}
}

// Scheme returns the scheme whose types are decoded.
func (d *Decoder) Scheme() *runtime.Scheme { return d.scheme }

// Decode decodes data as want, which a body without kind and apiVersion is
// taken for. A body of another kind is a BadRequest. What fieldValidation
// finds goes to warn, or is a BadRequest with Strict.
func (d *Decoder) Decode(data []byte, media MediaType, want schema.GroupVersionKind, validation Validation, warn func(string)) (runtime.Object, error) {
	serializers := d.strict
	if validation == Ignore {
		serializers = d.lenient
	}
	s, ok := serializers[media]
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("bodies of type %s cannot be decoded", media))
	}
	if err := d.checkWidth(data, media, want, nil); err != nil {
		return nil, err
	}
	if media == JSON {
		if obj := d.decodePlain(data, want); obj != nil {
			return obj, nil
		}
	}
	obj, got, err := s.Decode(data, &want, nil)
	strict, isStrict := runtime.AsStrictDecodingError(err)
	if err != nil && !isStrict {
		obj, got, err = d.exact[media].Decode(data, &want, nil)
	}
	switch {
	case isStrict && validation == Strict:
		return nil, apierrors.NewBadRequest(err.Error())
	case isStrict:
		for _, e := range strict.Errors() {
			warn(e.Error())
		}
	case runtime.IsNotRegisteredError(err):
		return nil, errWrongKind(want, got)
	case err != nil:
		return nil, apierrors.NewBadRequest(describeDecodeError(err, got, want))
	}
	if *got != want {
		return nil, errWrongKind(want, got)
	}
	return obj, nil
}

// DecodeFor is Decode for a resource, which may be a custom one.
func (d *Decoder) DecodeFor(res *resource.Resource, data []byte, media MediaType, validation Validation, warn func(string)) (runtime.Object, error) {
	if res.Custom == nil {
		return d.Decode(data, media, res.GVK(), validation, warn)
	}
	u, found, err := decodeMap(data, media)
	if err != nil {
		return nil, err
	}
	return u, acceptCustom(res, u, found, validation, warn)
}

// acceptCustom makes of a decoded object what its schema knows. found is what
// decoding found; fieldValidation decides about that and about unknown fields.
func acceptCustom(res *resource.Resource, u *unstructured.Unstructured, found []error, validation Validation, warn func(string)) error {
	if err := checkType(res, u); err != nil {
		return err
	}
	unknown, err := res.Custom.Accept(u, validation != Ignore)
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	for _, field := range unknown {
		found = append(found, fmt.Errorf("unknown field %q", field))
	}
	return report(found, validation, warn)
}

// decodeMap decodes JSON or YAML without a type. found is what strict decoding
// finds: repeated fields.
func decodeMap(data []byte, media MediaType) (u *unstructured.Unstructured, found []error, err error) {
	if err := checkWidth(data, media, maxNodes); err != nil {
		return nil, nil, err
	}
	switch media {
	case JSON:
	case YAML:
		strict, strictErr := yaml.YAMLToJSONStrict(data)
		if strictErr != nil {
			if strict, err = yaml.YAMLToJSON(data); err != nil {
				return nil, nil, apierrors.NewBadRequest("the body is not valid YAML: " + err.Error())
			}
			found = append(found, strictErr)
		}
		data = strict
	default:
		return nil, nil, apierrors.NewGenericServerResponse(http.StatusUnsupportedMediaType, "", schema.GroupResource{}, "",
			"the body of the request was in an unknown format - accepted media types include: application/json, application/yaml", 0, false)
	}
	if object, ok := jsonvalue.Read(data); ok {
		return &unstructured.Unstructured{Object: object}, found, nil
	}
	u = &unstructured.Unstructured{}
	strict, err := kjson.UnmarshalStrict(data, &u.Object)
	if err != nil {
		return nil, nil, apierrors.NewBadRequest("the body is not a JSON object: " + err.Error())
	}
	return u, append(found, strict...), nil
}

// checkType refuses a custom object without a type, or of another.
func checkType(res *resource.Resource, u *unstructured.Unstructured) error {
	for _, field := range []string{"kind", "apiVersion"} {
		if s, ok := u.Object[field].(string); !ok || s == "" {
			return apierrors.NewBadRequest(fmt.Sprintf("Object '%s' is missing in the body", strings.ToUpper(field[:1])+field[1:]))
		}
	}
	if got := u.GroupVersionKind(); got != res.GVK() {
		return errWrongKind(res.GVK(), &got)
	}
	if _, ok := u.Object["metadata"].(map[string]any); !ok && u.Object["metadata"] != nil {
		return apierrors.NewBadRequest("metadata must be an object")
	}
	return nil
}

// report hands what strict decoding found to the client as fieldValidation
// says.
func report(found []error, validation Validation, warn func(string)) error {
	switch {
	case len(found) == 0 || validation == Ignore:
		return nil
	case validation == Strict:
		return apierrors.NewBadRequest(runtime.NewStrictDecodingError(found).Error())
	}
	for _, e := range found {
		warn(e.Error())
	}
	return nil
}

// DecodeInto decodes options, which clients send under many group versions,
// into an object of a known type.
func (d *Decoder) DecodeInto(data []byte, media MediaType, into runtime.Object) (runtime.Object, error) {
	s, ok := d.exact[media]
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("bodies of type %s cannot be decoded", media))
	}
	if err := d.checkWidth(data, media, schema.GroupVersionKind{}, into); err != nil {
		return nil, err
	}
	obj, _, err := s.Decode(data, nil, into)
	return obj, err
}

func errWrongKind(want schema.GroupVersionKind, got *schema.GroupVersionKind) error {
	if got == nil {
		got = &schema.GroupVersionKind{}
	}
	return apierrors.NewBadRequest(fmt.Sprintf(
		"the API version in the data (%s) does not match the expected API version (%s), or the kind (%s) does not match the expected kind (%s)",
		got.GroupVersion(), want.GroupVersion(), got.Kind, want.Kind))
}

// describeDecodeError names the kind that could not be decoded and keeps the
// library's field and reason. got is nil when not even the kind was found. The
// body is not shown: it may be a Secret's.
func describeDecodeError(err error, got *schema.GroupVersionKind, want schema.GroupVersionKind) string {
	if got == nil || got.Kind == "" {
		return fmt.Sprintf("the object provided is unrecognized (must be of type %s): %v", want.Kind, err)
	}
	return undecodable(got.Kind, got.Version, want.Kind) + err.Error()
}

// undecodable is how the description of a body begins that is not what its kind
// is made of.
func undecodable(kind, version, want string) string {
	return fmt.Sprintf("%s in version %q cannot be handled as a %s: ", kind, version, want)
}
