package plugin

// ImageLocality prefers nodes that have the pod's images already.
type ImageLocality struct{}

// Name implements Score.
func (ImageLocality) Name() string { return "ImageLocality" }

// Weight implements Score.
func (ImageLocality) Weight() int64 { return 1 }

// The sum of image sizes that begins to count, and the one per container from
// which more does not count more.
const (
	minImageBytes = 23 << 20
	maxImageBytes = 1000 << 20
)

// Score implements Score.
func (ImageLocality) Score(p *Pod, n *Node) int64 {
	var sum int64
	for _, name := range p.Images {
		sum += n.Images[name]
	}
	top := int64(maxImageBytes * max(len(p.Images), 1))
	sum = min(max(sum, minImageBytes), top)
	return MaxScore * (sum - minImageBytes) / (top - minImageBytes)
}
