// Inspect with an exported product in C++: OpenVINO, nothing else. Reads product.xml (--target openvino) or
// product.onnx (--target onnx-single).
//
//   g++ -std=c++17 openvino_consumer.cpp -I$OPENVINO/include -L$OPENVINO/libs -l:libopenvino.so.VERSION -o consumer
//   ./consumer exported/product.xml image.rgb      (raw bytes: height x width x 3, RGB)
#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <iterator>
#include <vector>

#include <openvino/openvino.hpp>

int main(int argc, char** argv) {
    if (argc != 3) {
        std::cerr << "usage: consumer product.xml image.rgb\n";
        return 2;
    }
    try {
        ov::Core core;
        // float32 on every processor: the scores are then the product's.
        auto compiled = core.compile_model(argv[1], "CPU", ov::hint::inference_precision(ov::element::f32),
                                           ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY));
        const ov::Shape shape = compiled.input().get_shape();

        std::ifstream file(argv[2], std::ios::binary);
        std::vector<uint8_t> image((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
        if (image.size() != ov::shape_size(shape)) {
            std::cerr << "expected " << ov::shape_size(shape) << " bytes, got " << image.size() << "\n";
            return 2;
        }
        auto request = compiled.create_infer_request();
        request.set_input_tensor(ov::Tensor(ov::element::u8, shape, image.data()));
        request.infer();

        const float score = *request.get_tensor("score").data<float>();
        const float threshold = *request.get_tensor("threshold").data<float>();
        const bool anomalous = request.get_tensor("is_anomalous").data<char>()[0] != 0;
        const ov::Tensor map = request.get_tensor("anomaly_map");
        const float* heat = map.data<float>();
        const size_t peak = std::max_element(heat, heat + map.get_size()) - heat;
        const size_t rows = map.get_shape()[0], columns = map.get_shape()[1];
        std::cout << (anomalous ? "ANOMALY" : "good") << " score " << score << " threshold " << threshold << " peak at ("
                  << static_cast<int>((peak % columns + 0.5) * shape[1] / columns) << ", "
                  << static_cast<int>((peak / columns + 0.5) * shape[0] / rows) << ")\n";
        return anomalous ? 1 : 0;
    } catch (const std::exception& error) {
        std::cerr << "error: " << error.what() << "\n";
        return 2;
    }
}
