package plugin

// ImageLocality prefers nodes that have the pod's images already, the more so
// the more nodes have them, so that one node does not draw all pods.
type ImageLocality struct{}

// Name implements Plugin.
func (ImageLocality) Name() string { return "ImageLocality" }

// The sum of image sizes that begins to count, and the one per container from
// which more does not count more.
const (
	minImageBytes = 23 << 20
	maxImageBytes = 1000 << 20
)

// maxImages is how many images of a pod are looked for.
const maxImages = 31

// PreScore implements Score. The band has a bit for each of the pod's images
// that the node has.
func (ImageLocality) PreScore(c *Cluster, p *Pod) ScorePlan {
	if len(p.Shape.Images) == 0 {
		return ScorePlan{}
	}
	return ScorePlan{Band: imageScore{c, p.Shape.Images}}
}

type imageScore struct {
	c      *Cluster
	images []string
}

// Band implements BandScore.
func (s imageScore) Band(n *Node) int32 {
	if len(n.Images) == 0 {
		return 0
	}
	var band int32
	for i, name := range s.images[:min(len(s.images), maxImages)] {
		if _, ok := n.Images[name]; ok {
			band |= 1 << i
		}
	}
	return band
}

// Scores implements BandScore.
func (s imageScore) Scores(bands []Band, out []int64) {
	top := int64(maxImageBytes * len(s.images))
	for i, b := range bands {
		var sum int64
		for j, name := range s.images[:min(len(s.images), maxImages)] {
			if b.ID&(1<<j) == 0 {
				continue
			}
			if image := s.c.images[name]; image != nil {
				sum += int64(float64(image.size) * (float64(image.nodes) / float64(s.c.Len())))
			}
		}
		sum = min(max(sum, minImageBytes), top)
		out[i] = MaxScore * (sum - minImageBytes) / (top - minImageBytes)
	}
}

// image is what the cluster knows of an image.
type image struct {
	size  int64 // as the first node with it says
	nodes int
}

func (c *Cluster) countImages(f *Facts, sign int) {
	for name, size := range f.Images {
		i := c.images[name]
		if i == nil {
			i = &image{size: size}
			c.images[name] = i
		}
		if i.nodes += sign; i.nodes <= 0 {
			delete(c.images, name)
		}
	}
}
