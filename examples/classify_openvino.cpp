// Classifies a picture with an OpenVINO file that lucid exported.
//
//   lucid export model.safetensors --format openvino --out model.xml
//   g++ -std=c++17 classify_openvino.cpp $(pkg-config --cflags --libs openvino) -o classify
//   ./classify model.xml picture.ppm
//
// The picture is a binary PPM file (P6) of the network's size, so that nothing has to be decoded
// or resized here. The file takes its bytes as they are.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <numeric>
#include <openvino/openvino.hpp>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

// uint8 (1, height, width, 3).
ov::Tensor read_picture(const char* path, const ov::PartialShape& expected) {
    std::ifstream file(path, std::ios::binary);
    std::string kind;
    std::size_t width = 0, height = 0, largest = 0;
    if (!(file >> kind >> width >> height >> largest) || kind != "P6" || largest != 255) {
        throw std::runtime_error(std::string(path) + ": not a PPM file of the kind P6");
    }
    const ov::Shape shape{1, height, width, 3};
    if (!expected.compatible(ov::PartialShape(shape))) {
        throw std::runtime_error("the network takes pictures " + expected.to_string());
    }
    file.get();  // the one space before the pixels
    ov::Tensor picture(ov::element::u8, shape);
    file.read(reinterpret_cast<char*>(picture.data<std::uint8_t>()),
              static_cast<std::streamsize>(picture.get_byte_size()));
    if (!file) {
        throw std::runtime_error(std::string(path) + ": truncated");
    }
    return picture;
}

std::vector<std::string> class_names(const ov::Model& model) {
    std::istringstream labels(model.get_rt_info<std::string>("model_info", "labels"));
    return {std::istream_iterator<std::string>(labels), {}};
}

void classify(const char* model_path, const char* picture_path) {
    ov::Core core;
    const auto model = core.read_model(model_path);
    // Without this, CPUs that have bfloat16 compute in it.
    const auto precision = ov::hint::inference_precision(ov::element::f32);
    auto request = core.compile_model(model, "CPU", precision).create_infer_request();
    request.set_input_tensor(read_picture(picture_path, model->input().get_partial_shape()));
    request.infer();

    const ov::Tensor logits = request.get_output_tensor();
    const float* values = logits.data<const float>();
    const std::size_t classes = logits.get_size();
    const float most = *std::max_element(values, values + classes);
    double sum = 0;
    for (std::size_t k = 0; k < classes; ++k) {
        sum += std::exp(values[k] - most);
    }
    std::vector<std::size_t> best(classes);
    std::iota(best.begin(), best.end(), std::size_t{0});
    std::sort(best.begin(), best.end(),
              [values](std::size_t a, std::size_t b) { return values[a] > values[b]; });
    const std::vector<std::string> names = class_names(*model);
    for (std::size_t rank = 0; rank < std::min<std::size_t>(3, classes); ++rank) {
        const std::size_t k = best[rank];
        std::printf("%s %.1f%%\n", names.at(k).c_str(), 100 * std::exp(values[k] - most) / sum);
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        std::fprintf(stderr, "use: %s MODEL.xml PICTURE.ppm\n", argv[0]);
        return 2;
    }
    try {
        classify(argv[1], argv[2]);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
    return 0;
}
