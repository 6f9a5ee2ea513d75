package resource

import (
	"net"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The volumes whose clients were once part of the kubelet. A node agent may
// know none of them any more; the API still takes and checks them, in pods and
// in PersistentVolumes alike.

func checkNetworkVolume(path *field.Path, kind string, s *corev1.VolumeSource) field.ErrorList {
	p := path.Child(kind)
	switch kind {
	case "gitRepo":
		return append(required(p.Child("repository"), s.GitRepo.Repository),
			checkRelativePath(p.Child("directory"), s.GitRepo.Directory)...)
	case "iscsi":
		secret := s.ISCSI.SecretRef != nil
		return checkISCSI(p, s.ISCSI, secret, "must be valid format starting with iqn, eui, or naa")
	case "glusterfs":
		return append(required(p.Child("endpoints"), s.Glusterfs.EndpointsName), required(p.Child("path"), s.Glusterfs.Path)...)
	case "rbd":
		return checkRBD(p, s.RBD.CephMonitors, s.RBD.RBDImage)
	case "flexVolume":
		return checkFlexVolume(p, s.FlexVolume.Driver, s.FlexVolume.Options)
	case "cinder":
		errs := required(p.Child("volumeID"), s.Cinder.VolumeID)
		if ref := s.Cinder.SecretRef; ref != nil {
			errs = append(errs, required(p.Child("secretRef", "name"), ref.Name)...)
		}
		return errs
	case "cephfs":
		return checkMonitors(p, s.CephFS.Monitors)
	case "azureFile":
		return append(required(p.Child("secretName"), s.AzureFile.SecretName), required(p.Child("shareName"), s.AzureFile.ShareName)...)
	case "scaleIO":
		return checkScaleIO(p, s.ScaleIO.Gateway, s.ScaleIO.System, s.ScaleIO.VolumeName)
	case "storageos":
		errs := checkStorageOS(p, s.StorageOS.VolumeName, s.StorageOS.VolumeNamespace)
		if ref := s.StorageOS.SecretRef; ref != nil {
			errs = append(errs, required(p.Child("secretRef", "name"), ref.Name)...)
		}
		return errs
	}
	return checkCommonVolume(path, kind, &corev1.PersistentVolumeSource{
		GCEPersistentDisk: s.GCEPersistentDisk, AWSElasticBlockStore: s.AWSElasticBlockStore, NFS: s.NFS, FC: s.FC,
		Flocker: s.Flocker, VsphereVolume: s.VsphereVolume, Quobyte: s.Quobyte, AzureDisk: s.AzureDisk,
		PhotonPersistentDisk: s.PhotonPersistentDisk, PortworxVolume: s.PortworxVolume,
	})
}

// checkCommonVolume is about the kinds that are of one type in pods and in
// PersistentVolumes.
func checkCommonVolume(path *field.Path, kind string, s *corev1.PersistentVolumeSource) field.ErrorList {
	p := path.Child(kind)
	switch kind {
	case "gcePersistentDisk":
		// The name is upstream's, which clients have seen for ten years.
		p = path.Child("persistentDisk")
		return append(required(p.Child("pdName"), s.GCEPersistentDisk.PDName), checkPartition(p, s.GCEPersistentDisk.Partition)...)
	case "awsElasticBlockStore":
		return append(required(p.Child("volumeID"), s.AWSElasticBlockStore.VolumeID), checkPartition(p, s.AWSElasticBlockStore.Partition)...)
	case "nfs":
		errs := append(required(p.Child("server"), s.NFS.Server), required(p.Child("path"), s.NFS.Path)...)
		if !strings.HasPrefix(s.NFS.Path, "/") {
			errs = append(errs, field.Invalid(p.Child("path"), s.NFS.Path, "must be an absolute path"))
		}
		return errs
	case "fc":
		return checkFC(p, s.FC)
	case "flocker":
		return checkFlocker(p, s.Flocker)
	case "vsphereVolume":
		return required(p.Child("volumePath"), s.VsphereVolume.VolumePath)
	case "quobyte":
		return checkQuobyte(p, s.Quobyte)
	case "azureDisk":
		return checkAzureDisk(p, s.AzureDisk)
	case "photonPersistentDisk":
		return required(p.Child("pdID"), s.PhotonPersistentDisk.PdID)
	case "portworxVolume":
		return required(p.Child("volumeID"), s.PortworxVolume.VolumeID)
	}
	return nil
}

func checkPartition(path *field.Path, n int32) field.ErrorList {
	if n < 0 || n > 255 {
		return field.ErrorList{field.Invalid(path.Child("partition"), n, utilvalidation.InclusiveRangeError(1, 255))}
	}
	return nil
}

// The three ways to name an iSCSI node (RFC 3720, section 3.2.6.3).
var iscsiNames = map[string]*regexp.Regexp{
	"iqn": regexp.MustCompile(`^iqn\.\d{4}-\d{2}\.([[:alnum:]-.]+)(:[^,;*&$|\s]+)$`),
	"eui": regexp.MustCompile(`^eui\.[[:alnum:]]{16}$`),
	"naa": regexp.MustCompile(`^naa\.[[:alnum:]]{32}$`),
}

// checkISCSIName: unknown is what is said of a name of none of the three kinds.
func checkISCSIName(path *field.Path, name, unknown string) field.ErrorList {
	if len(name) < 3 || iscsiNames[name[:3]] == nil {
		return field.ErrorList{field.Invalid(path, name, unknown)}
	}
	if !iscsiNames[name[:3]].MatchString(name) {
		return field.ErrorList{field.Invalid(path, name, "must be valid format")}
	}
	return nil
}

func checkISCSI(path *field.Path, s *corev1.ISCSIVolumeSource, secret bool, unknown string) field.ErrorList {
	errs := required(path.Child("targetPortal"), s.TargetPortal)
	if s.IQN == "" {
		errs = append(errs, field.Required(path.Child("iqn"), ""))
	} else {
		errs = append(errs, checkISCSIName(path.Child("iqn"), s.IQN, unknown)...)
	}
	errs = append(errs, checkLUN(path.Child("lun"), s.Lun)...)
	if (s.DiscoveryCHAPAuth || s.SessionCHAPAuth) && !secret {
		errs = append(errs, field.Required(path.Child("secretRef"), ""))
	}
	if s.InitiatorName != nil {
		errs = append(errs, checkISCSIName(path.Child("initiatorname"), *s.InitiatorName, unknown)...)
	}
	return errs
}

func checkLUN(path *field.Path, lun int32) field.ErrorList {
	if lun < 0 || lun > 255 {
		return field.ErrorList{field.Invalid(path, lun, utilvalidation.InclusiveRangeError(0, 255))}
	}
	return nil
}

func checkFC(path *field.Path, s *corev1.FCVolumeSource) field.ErrorList {
	p := path.Child("targetWWNs")
	var errs field.ErrorList
	switch {
	case len(s.TargetWWNs) == 0 && len(s.WWIDs) == 0:
		errs = append(errs, field.Required(p, "must specify either targetWWNs or wwids, but not both"))
	case len(s.TargetWWNs) > 0 && len(s.WWIDs) > 0:
		errs = append(errs, field.Invalid(p, s.TargetWWNs, "targetWWNs and wwids can not be specified simultaneously"))
	}
	if len(s.TargetWWNs) == 0 {
		return errs
	}
	if s.Lun == nil {
		return append(errs, field.Required(path.Child("lun"), "lun is required if targetWWNs is specified"))
	}
	return append(errs, checkLUN(path.Child("lun"), *s.Lun)...)
}

func checkFlocker(path *field.Path, s *corev1.FlockerVolumeSource) field.ErrorList {
	var errs field.ErrorList
	switch {
	case s.DatasetName == "" && s.DatasetUUID == "":
		errs = append(errs, field.Required(path, "one of datasetName and datasetUUID is required"))
	case s.DatasetName != "" && s.DatasetUUID != "":
		errs = append(errs, field.Invalid(path, "resource", "datasetName and datasetUUID can not be specified simultaneously"))
	}
	if strings.Contains(s.DatasetName, "/") {
		errs = append(errs, field.Invalid(path.Child("datasetName"), s.DatasetName, "must not contain '/'"))
	}
	return errs
}

// maxQuobyteTenant is the length of a UUID, with room.
const maxQuobyteTenant = 64

func checkQuobyte(path *field.Path, s *corev1.QuobyteVolumeSource) field.ErrorList {
	const pairs = "must be a host:port pair or multiple pairs separated by commas"
	var errs field.ErrorList
	switch {
	case s.Registry == "":
		errs = append(errs, field.Required(path.Child("registry"), pairs))
	case len(s.Tenant) > maxQuobyteTenant:
		errs = append(errs, field.Required(path.Child("tenant"), "must be a UUID and may not exceed a length of 64 characters"))
	default:
		for _, pair := range strings.Split(s.Registry, ",") {
			if _, _, err := net.SplitHostPort(pair); err != nil {
				errs = append(errs, field.Invalid(path.Child("registry"), s.Registry, pairs))
			}
		}
	}
	return append(errs, required(path.Child("volume"), s.Volume)...)
}

func checkAzureDisk(path *field.Path, d *corev1.AzureDiskVolumeSource) field.ErrorList {
	errs := append(required(path.Child("diskName"), d.DiskName), required(path.Child("diskURI"), d.DataDiskURI)...)
	errs = append(errs, checkOptional(path.Child("cachingMode"), d.CachingMode, corev1.AzureDataDiskCachingNone,
		corev1.AzureDataDiskCachingReadOnly, corev1.AzureDataDiskCachingReadWrite)...)
	errs = append(errs, checkOptional(path.Child("kind"), d.Kind, corev1.AzureSharedBlobDisk,
		corev1.AzureDedicatedBlobDisk, corev1.AzureManagedDisk)...)
	if d.Kind == nil {
		return errs
	}
	prefix, form := "https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"
	if *d.Kind == corev1.AzureManagedDisk {
		prefix, form = "/subscriptions/", "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"
	}
	if !strings.HasPrefix(d.DataDiskURI, prefix) {
		errs = append(errs, field.NotSupported(path.Child("diskURI"), d.DataDiskURI, []string{form}))
	}
	return errs
}

func checkMonitors(path *field.Path, monitors []string) field.ErrorList {
	if len(monitors) == 0 {
		return field.ErrorList{field.Required(path.Child("monitors"), "")}
	}
	return nil
}

func checkRBD(path *field.Path, monitors []string, image string) field.ErrorList {
	return append(checkMonitors(path, monitors), required(path.Child("image"), image)...)
}

// checkFlexVolume: options of Kubernetes' own names are how the kubelet speaks
// to the driver.
func checkFlexVolume(path *field.Path, driver string, options map[string]string) field.ErrorList {
	errs := required(path.Child("driver"), driver)
	for _, key := range sortedKeys(options) {
		domain, _, _ := strings.Cut(key, "/")
		domain = "." + strings.ToLower(domain)
		if slices.ContainsFunc([]string{".kubernetes.io", ".k8s.io"}, func(own string) bool { return strings.HasSuffix(domain, own) }) {
			errs = append(errs, field.Invalid(path.Child("options").Key(key), key, "kubernetes.io and k8s.io namespaces are reserved"))
		}
	}
	return errs
}

func checkScaleIO(path *field.Path, gateway, system, volume string) field.ErrorList {
	errs := append(required(path.Child("gateway"), gateway), required(path.Child("system"), system)...)
	return append(errs, required(path.Child("volumeName"), volume)...)
}

func checkStorageOS(path *field.Path, name, namespace string) field.ErrorList {
	errs := checkName(path.Child("volumeName"), name, isLabel)
	if namespace != "" {
		errs = append(errs, invalid(path.Child("volumeNamespace"), namespace, isLabel(namespace))...)
	}
	return errs
}

// checkPersistentSource is checkVolumeKind for PersistentVolumes, whose secrets
// lie in namespaces of their own.
func checkPersistentSource(path *field.Path, kind, volume string, s *corev1.PersistentVolumeSource) field.ErrorList {
	p := path.Child(kind)
	switch kind {
	case "hostPath":
		return checkHostPath(p, s.HostPath)
	case "glusterfs":
		errs := append(required(p.Child("endpoints"), s.Glusterfs.EndpointsName), required(p.Child("path"), s.Glusterfs.Path)...)
		if ns := s.Glusterfs.EndpointsNamespace; ns != nil && *ns == "" {
			errs = append(errs, field.Invalid(p.Child("endpointsNamespace"), *ns, "if the endpointnamespace is set, it must be a valid namespace name"))
		} else if ns != nil {
			errs = append(errs, invalid(p.Child("endpointsNamespace"), *ns, validation.ValidateNamespaceName(*ns, false))...)
		}
		return errs
	case "rbd":
		return checkRBD(p, s.RBD.CephMonitors, s.RBD.RBDImage)
	case "iscsi":
		return checkPersistentISCSI(p, volume, s.ISCSI)
	case "cinder":
		errs := required(p.Child("volumeID"), s.Cinder.VolumeID)
		if ref := s.Cinder.SecretRef; ref != nil {
			errs = append(errs, required(p.Child("secretRef", "name"), ref.Name)...)
			errs = append(errs, required(p.Child("secretRef", "namespace"), ref.Namespace)...)
		}
		return errs
	case "cephfs":
		return checkMonitors(p, s.CephFS.Monitors)
	case "flexVolume":
		return checkFlexVolume(p, s.FlexVolume.Driver, s.FlexVolume.Options)
	case "azureFile":
		errs := append(required(p.Child("secretName"), s.AzureFile.SecretName), required(p.Child("shareName"), s.AzureFile.ShareName)...)
		if ns := s.AzureFile.SecretNamespace; ns != nil {
			errs = append(errs, required(p.Child("secretNamespace"), *ns)...)
		}
		return errs
	case "scaleIO":
		return checkScaleIO(p, s.ScaleIO.Gateway, s.ScaleIO.System, s.ScaleIO.VolumeName)
	case "storageos":
		errs := checkStorageOS(p, s.StorageOS.VolumeName, s.StorageOS.VolumeNamespace)
		if ref := s.StorageOS.SecretRef; ref != nil {
			errs = append(errs, required(p.Child("secretRef", "name"), ref.Name)...)
			errs = append(errs, required(p.Child("secretRef", "namespace"), ref.Namespace)...)
		}
		return errs
	case "csi":
		return checkPersistentCSI(p, s.CSI)
	}
	return checkCommonVolume(path, kind, s)
}

// maxISCSIPath is what a volume's name and its portal may take together where
// an initiator's interface is named after them.
const maxISCSIPath = 64

func checkPersistentISCSI(path *field.Path, volume string, s *corev1.ISCSIPersistentVolumeSource) field.ErrorList {
	errs := checkISCSI(path, &corev1.ISCSIVolumeSource{
		TargetPortal: s.TargetPortal, IQN: s.IQN, Lun: s.Lun, DiscoveryCHAPAuth: s.DiscoveryCHAPAuth,
		SessionCHAPAuth: s.SessionCHAPAuth, InitiatorName: s.InitiatorName,
	}, s.SecretRef != nil, "must be valid format")
	if s.InitiatorName != nil && len(volume+":"+s.TargetPortal) > maxISCSIPath {
		errs = append(errs, field.Invalid(path.Child("targetportal"), s.TargetPortal,
			"Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified."))
	}
	if s.SecretRef != nil {
		errs = append(errs, required(path.Child("secretRef", "name"), s.SecretRef.Name)...)
	}
	return errs
}

func checkPersistentCSI(path *field.Path, s *corev1.CSIPersistentVolumeSource) field.ErrorList {
	errs := append(checkDriverName(path.Child("driver"), s.Driver), required(path.Child("volumeHandle"), s.VolumeHandle)...)
	for _, ref := range []struct {
		name  string
		value *corev1.SecretReference
	}{
		{"controllerPublishSecretRef", s.ControllerPublishSecretRef}, {"controllerExpandSecretRef", s.ControllerExpandSecretRef},
		{"nodePublishSecretRef", s.NodePublishSecretRef}, {"nodeExpandSecretRef", s.NodeExpandSecretRef},
	} {
		if ref.value != nil {
			p := path.Child(ref.name)
			errs = append(errs, checkName(p.Child("name"), ref.value.Name, utilvalidation.IsDNS1123Subdomain)...)
			errs = append(errs, checkName(p.Child("namespace"), ref.value.Namespace, isLabel)...)
		}
	}
	return errs
}
