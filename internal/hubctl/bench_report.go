package hubctl

import (
	"fmt"
	"math/bits"
	"strings"
	"time"
)

// histogram counts durations in buckets that are at most 1/32 of their value
// wide, so that percentiles are right to about 3 %.
type histogram struct {
	buckets [64 * histogramSteps]uint64
	n       uint64
	max     time.Duration
}

const (
	histogramBits  = 5
	histogramSteps = 1 << histogramBits
)

func (h *histogram) add(d time.Duration) {
	d = max(d, 0)
	h.buckets[bucketOf(d)]++
	h.n++
	h.max = max(h.max, d)
}

func (h *histogram) merge(o *histogram) {
	for i, n := range o.buckets {
		h.buckets[i] += n
	}
	h.n += o.n
	h.max = max(h.max, o.max)
}

// percentile returns the duration that p percent of those added don't exceed,
// 0 when none was added.
func (h *histogram) percentile(p float64) time.Duration {
	rank := uint64(p/100*float64(h.n) + 0.5)
	var seen uint64
	for i, n := range h.buckets {
		if seen += n; n > 0 && seen >= rank {
			return min(h.max, bucketEnd(i))
		}
	}
	return h.max
}

func bucketOf(d time.Duration) int {
	v := uint64(d)
	shift := max(0, bits.Len64(v)-histogramBits-1)
	return shift<<histogramBits + int(v>>shift)
}

// bucketEnd returns the largest duration in a bucket.
func bucketEnd(i int) time.Duration {
	shift := max(0, i>>histogramBits-1)
	return time.Duration((uint64(i-shift<<histogramBits)+1)<<shift - 1)
}

// report is the result of a measurement.
type report struct {
	Bench             string   `json:"bench"`
	Clients           int      `json:"clients"`
	Size              int      `json:"size"`
	Messages          int      `json:"messages"`
	Lost              int      `json:"lost"`
	Seconds           float64  `json:"seconds"`
	MessagesPerSecond float64  `json:"messagesPerSecond"`
	MegabytesPerSec   float64  `json:"megabytesPerSecond"`
	Latency           *latency `json:"latencyMicros,omitempty"` // absent when nothing tells of it

	times *histogram
}

type latency struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func (b *bench) report(took time.Duration) *report {
	return &report{Bench: b.name, Clients: b.clients, Size: b.size, Seconds: took.Seconds(), times: new(histogram)}
}

func (a *App) printReport(r *report) error {
	if r.Seconds > 0 {
		r.MessagesPerSecond = float64(r.Messages) / r.Seconds
		r.MegabytesPerSec = r.MessagesPerSecond * float64(r.Size) / 1e6
	}
	if r.times.n > 0 {
		micros := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
		r.Latency = &latency{
			P50: micros(r.times.percentile(50)), P90: micros(r.times.percentile(90)),
			P99: micros(r.times.percentile(99)), Max: micros(r.times.max),
		}
	}
	if a.JSON() {
		return EncodeJSON(a.Out, r)
	}
	_, err := a.Out.Write([]byte(r.text()))
	return err
}

func (r *report) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d artifacts of %d bytes in %.2f s", r.Bench, r.Messages, r.Size, r.Seconds)
	if r.Lost > 0 {
		fmt.Fprintf(&b, ", %d LOST", r.Lost)
	}
	fmt.Fprintf(&b, "\n  %.0f msgs/s  %.1f MB/s\n", r.MessagesPerSecond, r.MegabytesPerSec)
	if r.Latency != nil {
		round := func(d time.Duration) time.Duration { return d.Round(time.Microsecond) }
		fmt.Fprintf(&b, "  latency p50 %v  p90 %v  p99 %v  max %v\n",
			round(r.times.percentile(50)), round(r.times.percentile(90)), round(r.times.percentile(99)), round(r.times.max))
	}
	return b.String()
}
