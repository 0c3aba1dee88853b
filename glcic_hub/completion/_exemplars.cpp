// The inner loops of exemplars.py: similar patches, alpha expansion by maximum flow, and levelled seams.
//
// All decisions are made in integers, and the floating-point sums run in one order, so the results are the same on every
// machine. Arrays are C-contiguous and checked by exemplars.py.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <future>
#include <limits>
#include <map>
#include <numeric>
#include <tuple>
#include <utility>
#include <vector>

namespace py = pybind11;

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

namespace {

constexpr int NONE = -1;
constexpr int PROMISING = -2;  // the group of labels that are tried near pixels at which they are among the cheapest
constexpr int CHANNELS = 5;        // of a source: red, green, blue, and the mean gradients along both axes
constexpr int TOGETHER = 64;       // pixels that a thread takes at a time, as their costs lie side by side
constexpr int BLOCK = 64;          // greatest side of a block; the costs of its pixels together are below the next
constexpr int UNUSABLE = 1 << 26;  // the cost of a label at a pixel for which its source is not known

// Calls task(worker, i) for each i below a count on so many threads, which take `together` numbers at a time. Tasks must
// not touch what others change.
template <typename Task>
void share(int count, int together, int threads, const Task& task) {
  std::atomic<int> next{0};
  const auto work = [&](int worker) {
    for (int first = next.fetch_add(together); first < count; first = next.fetch_add(together))
      for (int i = first; i < std::min(count, first + together); ++i) task(worker, i);
  };
  std::vector<std::future<void>> others;
  for (int worker = 1; worker < std::min(threads, (count + together - 1) / together); ++worker)
    others.push_back(std::async(std::launch::async, work, worker));
  work(0);
  for (auto& other : others) other.get();
}

// ---------------------------------------------------------------------------------------------------------------------
// Similar patches: where each known patch has its like (PatchMatch, Barnes et al. 2009)

class Random {  // xorshift64*, Marsaglia 2003
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15ull + 1) {}
  int below(int bound) {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    const uint64_t drawn = (state_ * 0x2545F4914F6CDD1Dull) >> 32;
    return static_cast<int>((drawn * static_cast<uint64_t>(bound)) >> 32);
  }

 private:
  uint64_t state_;
};

struct Match {
  int y = NONE, x = NONE, distance = std::numeric_limits<int>::max();
};

int patch_distance(const uint8_t* image, int row, int ay, int ax, int by, int bx, int radius, int enough) {
  int sum = 0;
  for (int dy = -radius; dy <= radius; ++dy) {
    const uint8_t* a = image + (ay + dy) * row + (ax - radius) * 3;
    const uint8_t* b = image + (by + dy) * row + (bx - radius) * 3;
    for (int i = 0; i < (2 * radius + 1) * 3; ++i) {
      const int difference = static_cast<int>(a[i]) - static_cast<int>(b[i]);
      sum += difference * difference;
    }
    if (sum >= enough) break;
  }
  return sum;
}

// Finds for patches at every other pixel the most similar one at least `apart` pixels away: (n, 5), the patch's y, x,
// the offset dy, dx, and the squared distance.
Array<int32_t> similar_patches(const Array<uint8_t>& image, const Array<uint8_t>& whole, int radius, int apart,
                               int sweeps) {
  const int height = static_cast<int>(image.shape(0)), width = static_cast<int>(image.shape(1));
  const uint8_t *pixels = image.data(), *usable = whole.data();
  std::vector<std::pair<int, int>> centres, sources;
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      if (usable[y * width + x]) {
        sources.emplace_back(y, x);
        if (y % 2 == 0 && x % 2 == 0) centres.emplace_back(y, x);
      }
  std::vector<Match> best(static_cast<size_t>(height) * width);
  {
    py::gil_scoped_release release;
    Random random(1);
    const auto attempt = [&](int y, int x, int sy, int sx) {
      if (sy < 0 || sx < 0 || sy >= height || sx >= width || !usable[sy * width + sx]) return;
      if ((sy - y) * (sy - y) + (sx - x) * (sx - x) < apart * apart) return;
      Match& match = best[y * width + x];
      const int distance = patch_distance(pixels, width * 3, y, x, sy, sx, radius, match.distance);
      if (distance < match.distance) match = {sy, sx, distance};
    };
    const auto attempt_anywhere = [&](int y, int x) {
      const auto [sy, sx] = sources[random.below(static_cast<int>(sources.size()))];
      attempt(y, x, sy, sx);
    };
    for (const auto& [y, x] : centres)
      for (int i = 0; i < 4; ++i) attempt_anywhere(y, x);
    for (int sweep = 0; sweep < sweeps; ++sweep) {
      const bool forward = sweep % 2 == 0;
      const int back = forward ? -2 : 2;
      for (size_t i = 0; i < centres.size(); ++i) {
        const auto [y, x] = centres[forward ? i : centres.size() - 1 - i];
        // Neighbours' matches, shifted, and then others at random, nearer and nearer to the best so far.
        for (const auto& [ny, nx] : {std::pair<int, int>{y + back, x}, std::pair<int, int>{y, x + back}}) {
          if (ny < 0 || nx < 0 || ny >= height || nx >= width || best[ny * width + nx].y == NONE) continue;
          attempt(y, x, best[ny * width + nx].y + y - ny, best[ny * width + nx].x + x - nx);
        }
        for (int reach = std::max(height, width); reach >= 1; reach /= 2) {
          const Match match = best[y * width + x];
          if (match.y == NONE) {
            attempt_anywhere(y, x);
          } else {
            // One after the other: the order of a call's arguments is the compiler's.
            const int down = random.below(2 * reach + 1) - reach;
            const int right = random.below(2 * reach + 1) - reach;
            attempt(y, x, match.y + down, match.x + right);
          }
        }
      }
    }
  }
  std::vector<int32_t> found;
  for (const auto& [y, x] : centres) {
    const Match& match = best[y * width + x];
    if (match.y == NONE) continue;
    found.insert(found.end(), {y, x, match.y - y, match.x - x, match.distance});
  }
  Array<int32_t> matches({static_cast<py::ssize_t>(found.size() / 5), static_cast<py::ssize_t>(5)});
  std::copy(found.begin(), found.end(), matches.mutable_data());
  return matches;
}

// ---------------------------------------------------------------------------------------------------------------------
// Maximum flow with two search trees (Boykov and Kolmogorov 2004), the fastest on image grids

class Flow {
 public:
  void begin(int nodes) {
    nodes_.assign(nodes, Node{});
    arcs_.clear();
    value_ = 0;
    time_ = 0;
  }

  // Adds what it costs if node i ends on the sink's side, and if it ends on the source's.
  void add_costs(int i, int sink, int source) {
    const int excess = nodes_[i].excess;
    if (excess > 0)
      sink += excess;
    else
      source -= excess;
    value_ += std::min(sink, source);
    nodes_[i].excess = sink - source;
  }

  // Adds what it costs if i ends on the source's side and j on the sink's.
  void add_arc(int i, int j, int capacity) {
    const int arc = static_cast<int>(arcs_.size());
    arcs_.push_back({j, nodes_[i].first, capacity});
    nodes_[i].first = arc;
    arcs_.push_back({i, nodes_[j].first, 0});
    nodes_[j].first = arc + 1;
  }

  // Finds the least cost, and each node's side.
  int64_t solve() {
    active_.clear();
    for (int i = 0; i < static_cast<int>(nodes_.size()); ++i) {
      Node& node = nodes_[i];
      node.sink = node.excess < 0;
      node.parent = node.excess ? TERMINAL : FREE;
      node.distance = 1;
      if (node.excess) activate(i);
    }
    while (!active_.empty()) {
      const int i = active_.front();
      active_.pop_front();
      nodes_[i].active = false;
      // A node may grow its tree again after each path that is found from it.
      for (int bridge = grow(i); bridge != NONE; bridge = grow(i)) {
        ++time_;
        augment(bridge);
        adopt_orphans();
      }
    }
    return value_;
  }

  bool on_sink_side(int i) const { return nodes_[i].parent != FREE && nodes_[i].sink; }

 private:
  static constexpr int FREE = -1, TERMINAL = -2, ORPHAN = -3;
  struct Arc {
    int head, next, capacity;  // that of a pair's other arc is at index ^ 1
  };
  struct Node {
    int first = NONE, parent = FREE, stamp = 0, distance = 0, excess = 0;
    bool sink = false, active = false;
  };

  void activate(int i) {
    if (nodes_[i].active) return;
    nodes_[i].active = true;
    active_.push_back(i);
  }

  // Grows a tree from node i; gives the arc that touches the other tree, from the source's to the sink's.
  int grow(int i) {
    const Node& node = nodes_[i];
    if (node.parent == FREE) return NONE;
    for (int arc = node.first; arc != NONE; arc = arcs_[arc].next) {
      if (!arcs_[node.sink ? arc ^ 1 : arc].capacity) continue;
      Node& other = nodes_[arcs_[arc].head];
      if (other.parent == FREE) {
        other.sink = node.sink;
        other.parent = arc ^ 1;
        other.stamp = node.stamp;
        other.distance = node.distance + 1;
        activate(arcs_[arc].head);
      } else if (other.sink != node.sink) {
        return node.sink ? arc ^ 1 : arc;
      } else if (other.stamp <= node.stamp && other.distance > node.distance) {
        other.parent = arc ^ 1;  // a shorter way to the root
        other.stamp = node.stamp;
        other.distance = node.distance + 1;
      }
    }
    return NONE;
  }

  // Pushes as much as goes through the path over an arc between the trees.
  void augment(int bridge) {
    const int ends[2] = {arcs_[bridge ^ 1].head, arcs_[bridge].head};
    int least = arcs_[bridge].capacity;
    for (int side = 0; side < 2; ++side) {
      int i = ends[side];
      for (; nodes_[i].parent != TERMINAL; i = arcs_[nodes_[i].parent].head)
        least = std::min(least, arcs_[side ? nodes_[i].parent : nodes_[i].parent ^ 1].capacity);
      least = std::min(least, std::abs(nodes_[i].excess));
    }
    arcs_[bridge].capacity -= least;
    arcs_[bridge ^ 1].capacity += least;
    for (int side = 0; side < 2; ++side) {
      int i = ends[side];
      while (nodes_[i].parent != TERMINAL) {
        const int arc = side ? nodes_[i].parent : nodes_[i].parent ^ 1;
        const int next = arcs_[nodes_[i].parent].head;
        arcs_[arc].capacity -= least;
        arcs_[arc ^ 1].capacity += least;
        if (!arcs_[arc].capacity) orphan(i);
        i = next;
      }
      nodes_[i].excess += side ? least : -least;
      if (!nodes_[i].excess) orphan(i);
    }
    value_ += least;
  }

  void orphan(int i) {
    nodes_[i].parent = ORPHAN;
    orphans_.push_front(i);
  }

  // Finds new parents for the nodes that lost theirs, or sets them free.
  void adopt_orphans() {
    while (!orphans_.empty()) {
      const int i = orphans_.front();
      orphans_.pop_front();
      const bool sink = nodes_[i].sink;
      int best = NONE, best_distance = std::numeric_limits<int>::max();
      for (int arc = nodes_[i].first; arc != NONE; arc = arcs_[arc].next) {
        const int j = arcs_[arc].head;
        if (!arcs_[sink ? arc : arc ^ 1].capacity || nodes_[j].sink != sink || nodes_[j].parent == FREE) continue;
        const int distance = distance_to_root(j);
        if (distance < best_distance) {
          best = arc;
          best_distance = distance;
        }
        if (distance < std::numeric_limits<int>::max()) mark(j, distance);
      }
      nodes_[i].parent = best;
      if (best != NONE) {
        nodes_[i].stamp = time_;
        nodes_[i].distance = best_distance + 1;
        continue;
      }
      for (int arc = nodes_[i].first; arc != NONE; arc = arcs_[arc].next) {
        const int j = arcs_[arc].head;
        const int parent = nodes_[j].parent;
        if (nodes_[j].sink != sink || parent == FREE) continue;
        if (arcs_[sink ? arc : arc ^ 1].capacity) activate(j);
        if (parent >= 0 && arcs_[parent].head == i) {
          nodes_[j].parent = ORPHAN;
          orphans_.push_back(j);
        }
      }
    }
  }

  int distance_to_root(int j) {
    for (int distance = 0;; ++distance) {
      if (nodes_[j].stamp == time_) return distance + nodes_[j].distance;
      const int parent = nodes_[j].parent;
      if (parent == TERMINAL) {
        nodes_[j].stamp = time_;
        nodes_[j].distance = 1;
        return distance + 1;
      }
      if (parent < 0) return std::numeric_limits<int>::max();
      j = arcs_[parent].head;
    }
  }

  void mark(int j, int distance) {
    for (; nodes_[j].stamp != time_; j = arcs_[nodes_[j].parent].head) {
      nodes_[j].stamp = time_;
      nodes_[j].distance = distance--;
    }
  }

  std::vector<Node> nodes_;
  std::vector<Arc> arcs_;
  std::deque<int> active_, orphans_;
  int64_t value_ = 0;
  int time_ = 0;
};

// ---------------------------------------------------------------------------------------------------------------------
// The labelling: which source each pixel of the hole is copied from

struct Weights {
  int colour, seam, guide, guide_limit, context, radius;
};

class Labelling {
 public:
  Labelling(const Array<uint8_t>& features, const Array<uint8_t>& usable, const Array<uint8_t>& hole,
            const Array<uint8_t>& visible, const Array<uint8_t>& guide, const Array<uint8_t>& blurred,
            const Array<int32_t>& singular, const Array<int32_t>& labels, const Weights& weights)
      : height_(static_cast<int>(hole.shape(0))),
        width_(static_cast<int>(hole.shape(1))),
        label_count_(static_cast<int>(labels.shape(0))),
        features_(features.data()),
        usable_(usable.data()),
        hole_(hole.data()),
        guide_(guide.data()),
        blurred_(blurred.data()),
        singular_(singular.data()),
        labels_(labels.data()),
        weights_(weights),
        number_(static_cast<size_t>(height_) * width_, NONE) {
    for (int i = 0; i < height_ * width_; ++i)
      if (hole_[i]) {
        number_[i] = static_cast<int>(pixels_.size());
        pixels_.push_back(i);
      }
    for (const int there : pixels_) {
      first_neighbour_.push_back(static_cast<int>(neighbours_.size()));
      const int y = there / width_, x = there % width_;
      for (int ny = std::max(0, y - weights.radius); ny <= std::min(height_ - 1, y + weights.radius); ++ny)
        for (int nx = std::max(0, x - weights.radius); nx <= std::min(width_ - 1, x + weights.radius); ++nx)
          if (visible.data()[ny * width_ + nx]) neighbours_.push_back(ny * width_ + nx);
    }
    first_neighbour_.push_back(static_cast<int>(neighbours_.size()));
    block_.assign(pixels_.size(), NONE);
  }

  // Remembers costs from now on, unless there are too many pixels and labels.
  void remember() {
    if (static_cast<int64_t>(pixels_.size()) * label_count_ <= 1 << 24)
      costs_.assign(pixels_.size() * static_cast<size_t>(label_count_), NONE);
  }

  // Joins pixels deep inside one group to blocks, which change their labels as one: seams are elsewhere.
  //
  // start (H, W): groups, NONE outside the hole; labels_of: labels of each group; margin: least distance from other
  // groups. A pixel at which the first label of its group cannot be used stays by itself.
  void join(const int32_t* start, const std::vector<std::vector<int>>& labels_of, int margin) {
    std::map<std::tuple<int, int, int>, int> numbers;
    for (int i = 0; i < size(); ++i) {
      const int y = pixels_[i] / width_, x = pixels_[i] % width_, group = start[pixels_[i]];
      if (group == NONE || source(labels_of[group].front(), y, x) == NONE) continue;
      bool deep = inside(y - margin, x - margin) && inside(y + margin, x + margin);
      for (int ny = y - margin; deep && ny <= y + margin; ++ny)
        for (int nx = x - margin; deep && nx <= x + margin; ++nx) deep = start[ny * width_ + nx] == group;
      if (!deep) continue;
      const auto [place, is_new] = numbers.try_emplace({group, y / BLOCK, x / BLOCK}, static_cast<int>(blocks_.size()));
      if (is_new) blocks_.emplace_back();
      block_[i] = place->second;
      blocks_[block_[i]].push_back(i);
    }
  }

  // Gives all that change with a pixel its label.
  void spread(int i, std::vector<int>& chosen) const {
    if (block_[i] == NONE) return;
    for (const int j : blocks_[block_[i]]) chosen[j] = chosen[i];
  }

  // The pixel that stands for those that change together: the first.
  int first_of_block(int i) const { return block_[i] == NONE ? i : blocks_[block_[i]].front(); }

  // Whether all neighbours of a pixel change with it.
  bool is_enclosed(int i) const {
    if (block_[i] == NONE) return false;
    const int at = pixels_[i];
    const auto together = [&](int other) { return block_[number_[other]] == block_[i]; };
    return together(at - width_) && together(at - 1) && together(at + 1) && together(at + width_);
  }

  int size() const { return static_cast<int>(pixels_.size()); }
  int pixel(int i) const { return pixels_[i]; }

  // The cost of a label at a pixel, or at all that change with it: its difference from the guide and from the known
  // pixels around the hole, and what it costs to copy its source at all.
  int cost(int i, int label) {
    if (label == NONE) return UNUSABLE;
    if (costs_.empty()) return total_cost(i, label);
    int& cost = costs_[static_cast<size_t>(label) * pixels_.size() + i];
    if (cost == NONE) cost = total_cost(i, label);
    return cost;
  }

  int width() const { return width_; }
  const Weights& weights() const { return weights_; }

  // The pixel's number; NONE beyond the hole.
  int number(int y, int x) const { return inside(y, x) ? number_[y * width_ + x] : NONE; }

  bool inside(int y, int x) const { return y >= 0 && x >= 0 && y < height_ && x < width_; }

  // Where a label has its pixel for (y, x), as an index; NONE if that cannot be copied.
  int source(int label, int y, int x) const {
    if (label == NONE) return NONE;
    y += labels_[label * 2];
    x += labels_[label * 2 + 1];
    return inside(y, x) && usable_[y * width_ + x] ? y * width_ + x : NONE;
  }

  int difference(int one, int other) const {
    const uint8_t *a = features_ + int64_t{one} * CHANNELS, *b = features_ + int64_t{other} * CHANNELS;
    int sum = 0;
    for (int c = 0; c < CHANNELS; ++c) sum += std::abs(int{a[c]} - int{b[c]});
    return sum;
  }

  // The cost of a seam between two labels: the difference of their pixels on both sides.
  int seam(int a, int b, int py, int px, int qy, int qx) const {
    if (a == b) return 0;
    const int pa = source(a, py, px), pb = source(b, py, px), qa = source(a, qy, qx), qb = source(b, qy, qx);
    const bool at_p = pa != NONE && pb != NONE, at_q = qa != NONE && qb != NONE;
    if (!at_p && !at_q) return weights_.seam + 2 * UNKNOWN * CHANNELS * weights_.colour;
    const int at_one = at_p ? difference(pa, pb) : difference(qa, qb);
    return weights_.seam + weights_.colour * (at_one + (at_p && at_q ? difference(qa, qb) : at_one));
  }

 private:
  int total_cost(int i, int label) const {
    if (block_[i] == NONE) return compute_cost(i, label);
    int sum = 0;
    for (const int j : blocks_[block_[i]]) sum = std::min(sum + compute_cost(j, label), UNUSABLE);
    return sum;
  }

  int compute_cost(int i, int label) const {
    const int y = pixels_[i] / width_, x = pixels_[i] % width_;
    const int at = source(label, y, x);
    if (at == NONE) return UNUSABLE;
    int64_t sum = 0;
    for (int c = 0; c < 3; ++c) sum += std::abs(int{guide_[pixels_[i] * 3 + c]} - int{blurred_[at * 3 + c]});
    sum = weights_.guide * std::min<int64_t>(sum, weights_.guide_limit) + singular_[at];
    // The seam to what is known beside the hole, and how alike the surroundings are.
    int64_t around = 0;
    for (int j = first_neighbour_[i]; j < first_neighbour_[i + 1]; ++j) {
      const int ny = neighbours_[j] / width_, nx = neighbours_[j] % width_;
      const int other = source(label, ny, nx);
      const int apart = other == NONE ? UNKNOWN * CHANNELS : difference(neighbours_[j], other);
      around += apart;
      if (std::abs(ny - y) + std::abs(nx - x) == 1) sum += int64_t{2} * weights_.colour * apart;
    }
    const int patch = (2 * weights_.radius + 1) * (2 * weights_.radius + 1);
    return static_cast<int>(std::min<int64_t>(sum + around * weights_.context / patch, UNUSABLE / 4));
  }

  static constexpr int UNKNOWN = 64;  // the difference, in levels of 255, that counts where one side is not known

  int height_, width_, label_count_;
  const uint8_t *features_, *usable_, *hole_, *guide_, *blurred_;
  const int32_t *singular_, *labels_;
  Weights weights_;
  std::vector<int> pixels_, number_, costs_;
  std::vector<int> neighbours_, first_neighbour_;  // what is visible around each pixel
  std::vector<int> block_;                         // the number of each pixel's block
  std::vector<std::vector<int>> blocks_;
};

// Expands labels, one at a time. Several expansions may share a labelling if their pixels do not touch.
class Expansion {
 public:
  explicit Expansion(Labelling& labelling)
      : labelling_(labelling), node_(labelling.size(), NONE), change_(labelling.size()) {}

  // Lets each pixel of `members` keep its label or take this one, whichever costs least in all.
  //
  // members: in order, of a block all but those that are enclosed in it.
  void expand(int label, const std::vector<int>& members, std::vector<int>& chosen) {
    free_.clear();
    const Weights& weights = labelling_.weights();
    int nodes = 0;
    for (const int i : members) {
      if (const int first = labelling_.first_of_block(i); first != i)
        node_[i] = node_[first];
      else if (chosen[i] != label && labelling_.cost(i, label) < UNUSABLE)
        node_[i] = nodes++;
      if (node_[i] == NONE) continue;
      free_.push_back(i);
      const int y = labelling_.pixel(i) / labelling_.width(), x = labelling_.pixel(i) % labelling_.width();
      const int own = labelling_.source(chosen[i], y, x);
      change_[i] = own == NONE ? NONE : labelling_.difference(own, labelling_.source(label, y, x));
    }
    flow_.begin(nodes);
    int64_t before = 0, beyond = 0;
    for (const int i : free_) {
      if (labelling_.first_of_block(i) == i) {
        const int kept = labelling_.cost(i, chosen[i]);
        flow_.add_costs(node_[i], labelling_.cost(i, label), kept);
        before += kept;
      }
      const int y = labelling_.pixel(i) / labelling_.width(), x = labelling_.pixel(i) % labelling_.width();
      for (int side = 0; side < 4; ++side) {
        const int ny = y + DOWN[side], nx = x + RIGHT[side];
        const int j = labelling_.number(ny, nx);
        if (j == NONE || labelling_.first_of_block(i) == labelling_.first_of_block(j)) continue;
        // Most neighbours have the same label, and their sources have been compared with the offered ones already.
        const bool alike = chosen[i] == chosen[j] && node_[j] != NONE;
        if (alike && side >= 2) continue;
        const int keep_both = labelling_.seam(chosen[i], chosen[j], y, x, ny, nx);
        const int take_one = alike && change_[i] != NONE && change_[j] != NONE
                                 ? weights.seam + weights.colour * (change_[i] + change_[j])
                                 : labelling_.seam(label, chosen[j], y, x, ny, nx);
        if (node_[j] == NONE) {
          flow_.add_costs(node_[i], take_one, keep_both);
          before += keep_both;
        } else if (side < 2) {
          // Kolmogorov and Zabih 2004. Where all pixels are known differences are a metric; what is over is cut off.
          const int take_other = chosen[i] == chosen[j] ? take_one : labelling_.seam(chosen[i], label, y, x, ny, nx);
          const int keep = std::min(keep_both, take_one + take_other);
          flow_.add_costs(node_[i], take_one, keep);
          flow_.add_costs(node_[j], 0, take_one);
          flow_.add_arc(node_[i], node_[j], take_one + take_other - keep);
          before += keep;
          beyond -= take_one;
        }
      }
    }
    const int64_t gain = free_.empty() ? 0 : before - (flow_.solve() + beyond);
    for (const int i : free_) {
      if (gain > 0 && flow_.on_sink_side(node_[i])) {
        chosen[i] = label;
        if (labelling_.first_of_block(i) == i) labelling_.spread(i, chosen);
      }
      node_[i] = NONE;
    }
  }

 private:
  static constexpr int DOWN[4] = {0, 1, 0, -1}, RIGHT[4] = {1, 0, -1, 0};

  Labelling& labelling_;
  std::vector<int> node_, free_;
  std::vector<int> change_;  // the difference between the own and the offered source of each that is free
  Flow flow_;
};

// Finds for each promising label the pixels at which it is among the `count` cheapest.
std::vector<std::vector<int>> promising(Labelling& labelling, const int32_t* groups, int label_count, int count,
                                        int threads) {
  std::vector<int> labels;
  for (int label = 0; label < label_count; ++label)
    if (groups[label] == PROMISING) labels.push_back(label);
  std::vector<std::vector<std::pair<int, int>>> cheapest(labelling.size());  // costs and labels, in order
  share(labels.empty() ? 0 : labelling.size(), TOGETHER, threads, [&](int, int i) {
    if (labelling.first_of_block(i) != i) return;
    std::vector<std::pair<int, int>>& least = cheapest[i];
    for (const int label : labels) {
      const bool full = static_cast<int>(least.size()) == count;
      const std::pair<int, int> cost{labelling.cost(i, label), label};
      if (full && !(cost < least.back())) continue;
      if (full) least.pop_back();
      least.insert(std::upper_bound(least.begin(), least.end(), cost), cost);
    }
  });
  std::vector<std::vector<int>> pixels(label_count);
  for (int i = 0; i < labelling.size(); ++i)
    for (const auto& [cost, label] : cheapest[i]) pixels[label].push_back(i);
  return pixels;
}

// Finds the pixels of the hole within a distance of some of them, in order.
std::vector<int> within(const Labelling& labelling, const std::vector<int>& pixels, int distance) {
  std::vector<char> near(labelling.size());
  for (const int i : pixels) {
    const int y = labelling.pixel(i) / labelling.width(), x = labelling.pixel(i) % labelling.width();
    for (int ny = y - distance; ny <= y + distance; ++ny)
      for (int nx = x - distance; nx <= x + distance; ++nx)
        if (const int j = labelling.number(ny, nx); j != NONE) near[j] = 1;
  }
  for (int i = 0; i < labelling.size(); ++i)
    if (near[i]) near[labelling.first_of_block(i)] = 1;
  std::vector<int> found;
  for (int i = 0; i < labelling.size(); ++i)
    if ((near[i] || near[labelling.first_of_block(i)]) && !labelling.is_enclosed(i)) found.push_back(i);
  return found;
}

// Puts groups that may expand at the same time together, large ones first: no pixel of one is another's, or beside one
// of another's.
std::vector<std::vector<int>> batches(const Labelling& labelling, const std::vector<std::vector<int>>& groups_of_pixels,
                                      const std::vector<std::vector<int>>& members) {
  const int group_count = static_cast<int>(members.size());
  std::vector<std::vector<char>> touch(group_count, std::vector<char>(group_count));
  for (int i = 0; i < labelling.size(); ++i) {
    const int y = labelling.pixel(i) / labelling.width(), x = labelling.pixel(i) % labelling.width();
    for (const int j : {i, labelling.number(y, x + 1), labelling.number(y + 1, x)}) {
      if (j == NONE) continue;
      for (const int one : groups_of_pixels[i])
        for (const int other : groups_of_pixels[j]) touch[one][other] = touch[other][one] = 1;
    }
  }
  std::vector<std::vector<int>> together;
  std::vector<int> order(group_count);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return members[a].size() > members[b].size(); });
  for (const int group : order) {
    const auto free = [&](const std::vector<int>& batch) {
      return std::none_of(batch.begin(), batch.end(), [&](int other) { return touch[group][other]; });
    };
    const auto batch = std::find_if(together.begin(), together.end(), free);
    if (batch == together.end())
      together.push_back({group});
    else
      batch->push_back(group);
  }
  return together;
}

// Chooses a label for each pixel of the hole by alpha expansion (Boykov, Veksler and Zabih 2001).
//
// features (H, W, 5) uint8; usable (H, W) uint8: what may be copied; hole (H, W) uint8; visible (H, W) uint8: what the
// fill has to fit; guide and blurred (H, W, 3) uint8: what it should look like from afar, and what the image looks
// like; singular (H, W) int32: what it costs to copy a pixel at all. labels (L, 2) int32: dy, dx. groups (L,) int32: a
// label of group g is tried within `reach` of pixels whose start is g; one of NONE everywhere; one of PROMISING within
// `near` of pixels at which it is among the `best` cheapest. start (H, W) int32: groups, NONE outside the hole; a pixel
// starts from the first label of its group. The result does not depend on the number of threads. Gives (H, W) int32
// labels, NONE outside the hole and where no label can be used.
Array<int32_t> choose_labels(const Array<uint8_t>& features, const Array<uint8_t>& usable, const Array<uint8_t>& hole,
                             const Array<uint8_t>& visible, const Array<uint8_t>& guide,
                             const Array<uint8_t>& blurred, const Array<int32_t>& singular,
                             const Array<int32_t>& labels, const Array<int32_t>& groups, const Array<int32_t>& start,
                             int reach, int near, int best, int colour, int seam, int guide_weight, int guide_limit,
                             int context, int radius, int threads) {
  const int height = static_cast<int>(hole.shape(0)), width = static_cast<int>(hole.shape(1));
  const int label_count = static_cast<int>(labels.shape(0));
  Array<int32_t> result({hole.shape(0), hole.shape(1)});
  int32_t* out = result.mutable_data();
  py::gil_scoped_release release;
  Labelling labelling(features, usable, hole, visible, guide, blurred, singular, labels,
                      Weights{colour, seam, guide_weight, guide_limit, context, radius});
  // Which labels each group has, and which pixels they are tried at.
  std::vector<std::vector<int>> labels_of;
  std::vector<int> others;
  for (int label = 0; label < label_count; ++label) {
    const int group = groups.data()[label];
    if (group >= static_cast<int>(labels_of.size())) labels_of.resize(group + 1);
    (group < 0 ? others : labels_of[group]).push_back(label);
  }
  const int group_count = static_cast<int>(labels_of.size());
  std::vector<std::vector<int>> members(group_count), groups_of_pixels(labelling.size());
  std::vector<int> everywhere(labelling.size());
  if (group_count) labelling.join(start.data(), labels_of, reach + 2);
  if (!others.empty()) labelling.remember();
  for (int i = 0; i < labelling.size(); ++i) {
    everywhere[i] = i;
    if (labelling.is_enclosed(i)) continue;
    const int y = labelling.pixel(i) / width, x = labelling.pixel(i) % width;
    std::vector<int>& around = groups_of_pixels[i];
    for (int ny = std::max(0, y - reach); ny <= std::min(height - 1, y + reach); ++ny)
      for (int nx = std::max(0, x - reach); nx <= std::min(width - 1, x + reach); ++nx) {
        const int group = start.data()[ny * width + nx];
        if (group != NONE && std::find(around.begin(), around.end(), group) == around.end()) around.push_back(group);
      }
    for (const int group : around) members[group].push_back(i);
  }
  // Start from the first label of a pixel's own group, or, where there is none, from that of least cost.
  std::vector<int> chosen(labelling.size(), NONE);
  share(labelling.size(), TOGETHER, threads, [&](int, int i) {
    if (labelling.first_of_block(i) != i) return;
    int least = UNUSABLE;
    const auto attempt = [&](int label) {
      const int cost = labelling.cost(i, label);
      if (cost >= least) return;
      least = cost;
      chosen[i] = label;
    };
    const int own = start.data()[labelling.pixel(i)];
    if (own != NONE) attempt(labels_of[own].front());
    if (chosen[i] == NONE && own != NONE) std::for_each(labels_of[own].begin(), labels_of[own].end(), attempt);
    if (chosen[i] == NONE) std::for_each(others.begin(), others.end(), attempt);
    labelling.spread(i, chosen);
  });
  std::vector<Expansion> workers(std::max(1, threads), Expansion(labelling));
  for (const std::vector<int>& batch : batches(labelling, groups_of_pixels, members))
    share(static_cast<int>(batch.size()), 1, threads, [&](int worker, int i) {
      for (const int label : labels_of[batch[i]]) workers[worker].expand(label, members[batch[i]], chosen);
    });
  const std::vector<std::vector<int>> cheap_at = promising(labelling, groups.data(), label_count, best, threads);
  for (const int label : others) {
    const bool anywhere = groups.data()[label] == NONE;
    if (anywhere || !cheap_at[label].empty())
      workers[0].expand(label, anywhere ? everywhere : within(labelling, cheap_at[label], near), chosen);
  }
  std::fill(out, out + static_cast<size_t>(height) * width, NONE);
  for (int i = 0; i < labelling.size(); ++i) out[labelling.pixel(i)] = chosen[i];
  return result;
}

// ---------------------------------------------------------------------------------------------------------------------
// Levelled seams

// Levels the seams of a copy: steps between neighbours become what `right` and `down` say, as far as colours stay near
// those that are held (screened Poisson equation, Bhat et al. 2008, by successive overrelaxation).
//
// image (H, W, 3) float32, changed within the hole (H, W) uint8; held (H, W, 3) float32; right and down (H, W, 3)
// float32: a pixel less the one to its right, and the one below.
void level_seams(Array<float>& image, const Array<uint8_t>& hole, const Array<float>& held, const Array<float>& right,
                 const Array<float>& down, float screen, int sweeps) {
  const int height = static_cast<int>(hole.shape(0)), width = static_cast<int>(hole.shape(1));
  float* f = image.mutable_data();
  const uint8_t* inside = hole.data();
  const float *hold = held.data(), *to_right = right.data(), *to_below = down.data();
  constexpr float OVERRELAXATION = 1.8f;
  py::gil_scoped_release release;
  for (int sweep = 0; sweep < sweeps; ++sweep)
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) {
        const int i = y * width + x;
        if (!inside[i]) continue;
        const float degree = static_cast<float>((y > 0) + (x > 0) + (y + 1 < height) + (x + 1 < width)) + screen;
        const float share = OVERRELAXATION / degree;
        for (int c = 0; c < 3; ++c) {
          const int k = i * 3 + c;
          float sum = screen * hold[k];
          if (y > 0) sum += f[k - width * 3] - to_below[k - width * 3];
          if (y + 1 < height) sum += f[k + width * 3] + to_below[k];
          if (x + 1 < width) sum += f[k + 3] + to_right[k];
          // Last, as it is known last: the rest need not wait for it.
          const float rest = f[k] + (share * sum - OVERRELAXATION * f[k]);
          f[k] = x > 0 ? rest + share * (f[k - 3] - to_right[k - 3]) : rest;
        }
      }
}

}  // namespace

PYBIND11_MODULE(_exemplars, module) {
  module.def("similar_patches", &similar_patches);
  module.def("choose_labels", &choose_labels);
  module.def("level_seams", &level_seams);
}
